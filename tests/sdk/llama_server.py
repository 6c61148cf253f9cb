"""llama.cpp's own HTTP server in this process: `llama_server.py MODEL PORT`. It ends with the process."""

import signal
import sys
import threading

import xllamacpp


def main(model: str, port: int) -> None:
    # At once, whatever its threads do.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = 4
    params.n_ctx = 8192
    params.n_batch = params.n_ubatch = 512
    params.n_gpu_layers = 0
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(f"listening address={server.listening_address}", flush=True)
    threading.Event().wait()


main(sys.argv[1], int(sys.argv[2]))
