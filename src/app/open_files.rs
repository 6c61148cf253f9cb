//! The limit of open files, and how many connections it leaves room for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::ServerLimits;

/// Open files that are not connections of clients or upstreams: database, blobs of the daemon, listeners, logs,
/// libraries.
const KEPT: u64 = 256;
/// Open files for each connection: its socket, and the blob that it writes or reads.
const EACH: u64 = 2;
/// With fewer connections than this, a warning at the start says that the limit is too low.
const FEW: u64 = 128;

/// Raises the soft limit to the hard one. The usual soft limit of 1,024 exists only for programs that use `select`.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        // Some systems report an infinite hard limit but refuse it as a soft one.
        let aims = [hard, 1 << 20, 1 << 16, 10_240].into_iter().filter(|aim| *aim > soft && *aim <= hard);
        let mut raised = Ok(());
        for aim in aims {
            raised = setrlimit(Resource::RLIMIT_NOFILE, aim, hard);
            if raised.is_ok() {
                break;
            }
        }
        raised
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// The limits of a server, in a process with up to `upstream_calls` calls to the inference server.
pub(super) fn within_limit(limits: ServerLimits, upstream_calls: u32) -> ServerLimits {
    // If the system does not report the limit, the defaults apply.
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let connections = connections(open_files, upstream_calls);
    if connections < FEW {
        tracing::warn!(
            open_files,
            upstream_calls,
            needed = KEPT + u64::from(upstream_calls) + EACH * FEW,
            "the limit of open files leaves little room for clients: raise it (`ulimit -n`, `LimitNOFILE=`, \
             `--ulimit nofile=`) or lower --max-concurrency"
        );
    }
    limits.with_connections(usize::try_from(connections).unwrap_or(usize::MAX))
}

fn connections(open_files: u64, upstream_calls: u32) -> u64 {
    open_files.saturating_sub(KEPT + u64::from(upstream_calls)) / EACH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_and_the_upstream_need_is_no_clients() {
        let cases = [(1024, 256, 256), (1024, 2_000, 0), (20_000, 65_536, 0), (524_288, 65_536, 229_248)];

        for (open_files, upstream_calls, expected) in cases {
            assert_eq!(connections(open_files, upstream_calls), expected, "{open_files} {upstream_calls}");
        }
    }

    #[test]
    fn uploads_leave_half_of_the_connections_to_everything_else() {
        let limits = ServerLimits::default();

        assert_eq!(limits.with_connections(100_000), limits);
        assert_eq!((limits.with_connections(256).connections, limits.with_connections(256).uploads), (256, 128));
        assert_eq!((limits.with_connections(0).connections, limits.with_connections(0).uploads), (2, 1));
    }
}
