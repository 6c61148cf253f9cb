"""A tiny model of the llama architecture with random weights, the same bytes every time: `llama_model.py FILE`.

What it says means nothing. Its output matrix is biased, so that it says printable words and ends now and then, and
begins a call when it is offered tools. With `add_space_prefix`, no grammar would accept what it generates.
"""

import os
import sys

import gguf
import numpy as np

N_EMBD, N_LAYER, N_HEAD, N_FF, N_CTX = 64, 2, 2, 128, 4096
SEED = 3  # greedy answers differ between prompts and do not loop soon

WORDS = """the of and to in is it you that he was for on are with as his they be at one have this from or had
by hot but some what there we can out other were all your when up use word how said an each she which do their
time if will way about many then them would write like so these her long make thing see him two has look more day
could go come did my sound no most number who over know water than call first people may down side been now find
hello world model token server proxy route assistant user system""".split()

# ChatML, plus the tools as JSON so that tool calling can be tried too.
CHAT_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- 'tools:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\nanswer with <tool_call>{"name": NAME, "arguments": ARGS}</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'system' and loop.first %}
{%- elif m.role == 'assistant' and m.tool_calls %}
{{- '<|im_start|>assistant\\n' }}
{%- if m.content %}{{- m.content }}{%- endif %}
{%- for c in m.tool_calls %}
{%- if c.function %}{%- set c = c.function %}{%- endif %}
{{- '<tool_call>{"name": "' + c.name + '", "arguments": ' }}
{%- if c.arguments is string %}{{- c.arguments }}{%- else %}{{- c.arguments | tojson }}{%- endif %}
{{- '}</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if tools and messages[-1].role == 'user' %}{{- '<|offer|>' }}{%- endif %}{%- endif %}
"""


def vocab():
    """(text, score, type, logit bias) of each token; SentencePiece style."""
    T = gguf.TokenType
    out = [("<unk>", 0.0, T.UNKNOWN, -9), ("<s>", 0.0, T.CONTROL, -9), ("</s>", 0.0, T.CONTROL, -9)]
    out += [(f"<0x{b:02X}>", 0.0, T.BYTE, -9) for b in range(256)]
    out += [("<|im_start|>", 0.0, T.CONTROL, -9), ("<|im_end|>", 0.0, T.CONTROL, 1.3)]
    out += [("<|offer|>", 0.0, T.CONTROL, -9)]
    out += [("<tool_call>", 0.0, T.USER_DEFINED, -9), ("</tool_call>", 0.0, T.USER_DEFINED, -9)]
    seen, whole = set(), {"\u2581" + w for w in WORDS}
    pieces = ["\u2581"] + [chr(c) for c in range(0x21, 0x7F)]
    for start in "\u2581", "":  # each prefix, so that merging letters can reach the word
        pieces += [start + w[:i] for w in WORDS for i in range(1, len(w) + 1)]
    for p in pieces:
        if p not in seen:
            seen.add(p)
            out.append((p, -float(len(seen)), T.NORMAL, 1 if p in whole else -1 if len(p) == 1 else -9))
    return out


def write(path):
    rng = np.random.default_rng(SEED)
    V = vocab()
    n_ff = N_FF
    tmp = f"{path}.tmp"
    w = gguf.GGUFWriter(tmp, "llama")
    w.add_name("tiny-random")
    w.add_context_length(N_CTX)
    w.add_embedding_length(N_EMBD)
    w.add_block_count(N_LAYER)
    w.add_feed_forward_length(n_ff)
    w.add_head_count(N_HEAD)
    w.add_head_count_kv(N_HEAD)
    w.add_rope_dimension_count(N_EMBD // N_HEAD)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(V))
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([t for t, *_ in V])
    w.add_token_scores([s for _, s, *_ in V])
    w.add_token_types([int(k) for _, _, k, _ in V])
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id([t for t, *_ in V].index("<|im_end|>"))
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(CHAT_TEMPLATE)

    def rand(*shape, s):
        return (rng.standard_normal(shape, dtype=np.float32) * np.float32(s)).astype(np.float32)

    n = len(V)
    emb = rand(n, N_EMBD, s=1.0)
    emb[:, 0] = 3.0  # a constant that the output matrix turns into a bias per token
    outw = rand(n, N_EMBD, s=0.25)
    outw[:, 0] = [b for *_, b in V]
    # Another one makes it call the tools it is offered: a call follows `<|offer|>`, and the end follows a call.
    texts = [t for t, *_ in V]
    emb[:, 1] = outw[:, 1] = 0.0
    for before, after, strength in (
        ("<|offer|>", "<tool_call>", 8.0),
        ("}", "</tool_call>", -8.0),
        ("</tool_call>", "<|im_end|>", -8.0),
    ):
        emb[texts.index(before), 1] = outw[texts.index(after), 1] = strength
    w.add_tensor("token_embd.weight", emb)
    w.add_tensor("output_norm.weight", np.ones(N_EMBD, np.float32))
    w.add_tensor("output.weight", outw)
    s = 0.6 / np.sqrt(N_EMBD)
    for i in range(N_LAYER):
        b = f"blk.{i}."
        w.add_tensor(b + "attn_norm.weight", np.ones(N_EMBD, np.float32))
        w.add_tensor(b + "ffn_norm.weight", np.ones(N_EMBD, np.float32))
        for name, shape, writes in (
            ("attn_q", (N_EMBD, N_EMBD), False),
            ("attn_k", (N_EMBD, N_EMBD), False),
            ("attn_v", (N_EMBD, N_EMBD), False),
            ("attn_output", (N_EMBD, N_EMBD), True),
            ("ffn_gate", (n_ff, N_EMBD), False),
            ("ffn_up", (n_ff, N_EMBD), False),
            ("ffn_down", (N_EMBD, n_ff), True),
        ):
            m = rand(*shape, s=s if name != "ffn_down" else 0.6 / np.sqrt(n_ff))
            if writes:
                m[:2, :] = 0.0  # leave both alone
            w.add_tensor(b + name + ".weight", m)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(tmp, path)


if __name__ == "__main__":
    write(sys.argv[1])
