//! Logs on standard error: for a terminal, for a file, or for the journal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crates whose logs are ours.
const OWN: [&str; 5] = ["farlun", "target_core", "iscsi_pdu", "tunnel", "initiator"];

/// Starts logging. `RUST_LOG` decides if it is set, else `verbose` (how often `-v` was given) does, upwards from what
/// the subcommand says by itself: a daemon tells what happens, a command at a terminal only what goes wrong.
pub(crate) fn start(verbose: u8, daemon: bool) {
    let fallback = filter(verbose, daemon);
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            eprintln!("farlun: RUST_LOG={text} is ignored: {error}");
            EnvFilter::new(fallback)
        }),
        _ => EnvFilter::new(fallback),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = layer().with_writer(std::io::stderr).with_target(verbose > 0);
    if stderr_is_the_journal() {
        // The journal keeps the time itself and shows escape sequences as blobs.
        registry.with(layer.without_time().with_ansi(false)).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

fn filter(verbose: u8, daemon: bool) -> String {
    let level = match u8::from(daemon) + verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let others = if verbose > 2 { "debug" } else { "warn" };
    let own: Vec<String> = OWN.iter().map(|name| format!("{name}={level}")).collect();
    format!("{others},{}", own.join(","))
}

/// systemd.exec(5): `$JOURNAL_STREAM` names the device and inode of the stream, so that a program whose standard error
/// was redirected since is not deceived.
fn stderr_is_the_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    named == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rise_from_where_the_subcommand_starts() {
        assert!(filter(0, false).starts_with("warn,farlun=warn,"));
        assert!(filter(0, true).contains("target_core=info"));
        assert!(filter(1, true).contains("tunnel=debug"));
        assert!(filter(2, false).contains("farlun=debug"));
        assert!(filter(2, true).contains("farlun=trace"));
        assert!(filter(3, true).starts_with("debug,"), "other crates speak at -vvv only");
        for text in [filter(0, false), filter(9, true)] {
            assert!(EnvFilter::try_new(text).is_ok());
        }
    }
}
