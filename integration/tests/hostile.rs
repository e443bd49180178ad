//! The table of hostile bytes against the daemon itself: every row over TCP, each followed by a login that works, and
//! nothing left of any of them in the end.

#[path = "../../target-core/tests/hostile/mod.rs"]
mod hostile;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hostile::{BLOCKS, Line, Pause, ROWS_MIN, STRANGER_MAX_BYTES, Seen, bytes};
use integration::paths;
use integration::process::{Process, mortal, wait_until};

/// All rows, with all logins between them.
const LIMIT: Duration = Duration::from_secs(10);
/// What must come is waited for so long,
const PATIENCE: Duration = Duration::from_secs(5);
/// and what must not come so long.
const QUIET: Duration = Duration::from_millis(20);
/// The daemon's resident memory may grow by this much, in KiB: buffers and thread stacks it keeps for reuse, and the
/// pages of a memory allocator. The table sends and asks for far more.
const GROWTH_MAX_KIB: u64 = 32 * 1024;

/// A connection to the daemon.
struct Tcp(TcpStream);

impl Line for Tcp {
    fn send(&mut self, bytes: &[u8]) {
        // Fails when the other side has closed meanwhile; whether it should have is seen by reading.
        drop(self.0.write_all(bytes));
    }

    fn receive(&mut self, into: &mut Vec<u8>, quiet: bool) -> std::result::Result<(), Pause> {
        let limit = if quiet { QUIET } else { PATIENCE };
        self.0.set_read_timeout(Some(limit)).map_err(|_| Pause::Closed)?;
        let mut buffer = vec![0; 256 * 1024];
        match self.0.read(&mut buffer) {
            Ok(0) => Err(Pause::Closed),
            Ok(count) => {
                into.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Pause::Quiet),
            // What the daemon has not read when it closes comes back as a reset.
            Err(_) => Err(Pause::Closed),
        }
    }

    /// Gives up first: the daemon's own time limits are longer than this test.
    fn outlast(&mut self, into: &mut Vec<u8>) -> Pause {
        drop(self.0.shutdown(Shutdown::Write));
        loop {
            if let Err(pause) = self.receive(into, false) {
                return pause;
            }
        }
    }
}

fn connect(portal: &str) -> Result<Tcp> {
    let stream = TcpStream::connect(portal).context("the daemon does not accept connections any more")?;
    stream.set_nodelay(true)?;
    Ok(Tcp(stream))
}

/// A free port of loopback.
fn portal() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Resident memory, in KiB.
fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(number.parse()?)
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn no_row_of_the_table_harms_the_daemon() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let portal = portal()?;
    let config = dir.path().join("farlun.toml");
    let file = dir.path().join("lun.img");
    fs::write(
        &config,
        format!(
            "[[target]]\nname = \"{}\"\n[[target.lun]]\nlun = 0\nfile = \"{}\"\nsize = \"{}KiB\"\n\
             [[portal]]\nlisten = \"{portal}\"\n",
            bytes::TARGET,
            file.display(),
            BLOCKS / 2
        ),
    )?;
    let mut command = mortal(paths::farlun()?)?;
    let log = dir.path().join("farlun.log");
    let mut daemon = Process::spawn("farlun serve", command.arg("serve").arg(&config), &log)?;
    daemon.wait_for_line("ready", PATIENCE)?;

    let good = hostile::good_initiator();
    let next_login = |after: &str| -> Result<()> {
        let seen = hostile::play(&good, &mut connect(&portal)?).seen;
        ensure!(seen == good.expected, "after {after}, a good initiator sees {seen:?}");
        Ok(())
    };
    // Threads and buffers that the first command brings along are not growth.
    next_login("nothing")?;
    let (memory_kib, files) = (resident_kib(daemon.pid())?, descriptors(daemon.pid())?);

    let start = Instant::now();
    let rows = hostile::rows();
    let refused = |row: &&hostile::Row| row.expected.iter().any(Seen::is_refusal);
    ensure!(rows.iter().filter(refused).count() >= ROWS_MIN);
    let mut wrong = Vec::new();
    for row in &rows {
        let outcome = hostile::play(row, &mut connect(&portal)?);
        if outcome.seen != row.expected {
            wrong.push(format!(
                "{}: expected {:?}, seen {:?}",
                row.name, row.expected, outcome.seen
            ));
        }
        ensure!(
            outcome.stranger_bytes <= STRANGER_MAX_BYTES,
            "{}: a stranger is sent {} bytes",
            row.name,
            outcome.stranger_bytes
        );
        ensure!(daemon.is_running(), "{} ended the daemon:\n{}", row.name, daemon.log());
        next_login(row.name)?;
    }
    let took = start.elapsed();
    ensure!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    ensure!(took < LIMIT, "it took {took:?}");

    let left = || descriptors(daemon.pid()).map(|now| (now <= files).then_some(()));
    wait_until("connections are closed", PATIENCE, left)?;
    let growth_kib = resident_kib(daemon.pid())?.saturating_sub(memory_kib);
    println!("{} rows in {took:?}, {growth_kib} KiB more memory", rows.len());
    ensure!(growth_kib < GROWTH_MAX_KIB, "{growth_kib} KiB more than before");
    let log = daemon.log();
    ensure!(!log.contains("panicked"), "{log}");
    ensure!(daemon.stop()?.success(), "{}", daemon.log());
    Ok(())
}
