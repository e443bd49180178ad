//! A medium that does not answer for a minute: what hangs on it can be aborted and left at once, and the LUN beside it
//! keeps its speed. Over TCP on loopback, with a server in this process.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use initiator::{Command, LoginOptions, Lun, Session, TaskFunction, TaskOutcome, TaskTag, Transfer};
use target_core::iscsi::{Limits, Node, Portal, Target};
use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait};
use target_core::scsi::{Device, Identity, LogicalUnit};
use target_core::server::Server;
use tokio::net::{TcpListener, TcpStream};

const TARGET: &str = "iqn.2026-11.net.farlun:stuck";
const BLOCK_BYTES: u32 = 4096;
const BLOCKS: u64 = 4096;
/// The LUN whose medium gets stuck, and the one that does not.
const STUCK: Lun = Lun([0; 8]);
const FREE: Lun = Lun([0, 1, 0, 0, 0, 0, 0, 0]);

/// How long the medium blocks.
const BLOCKED: Duration = Duration::from_secs(60);
/// In which time aborts are answered,
const ABORT_LIMIT: Duration = Duration::from_secs(1);
/// and in which a logout is over, whatever the medium does.
const LOGOUT_LIMIT: Duration = Duration::from_secs(2);
/// Commands that hang at a time.
const HANGING: u64 = 32;

/// The other LUN's speed is measured for so long at a time, while the medium is stuck and while it is not in turn,
const SLICE: Duration = Duration::from_millis(400);
/// so many times each; the best of each counts, for the machine has other things to do.
const SLICES: usize = 5;
const DEPTH: usize = 8;
/// The speed beside a stuck medium, as part of what it is beside an idle one.
const SPEED_MIN: f64 = 0.7;

/// Memory that blocks while it is stuck.
#[derive(Debug)]
struct Stuck {
    inner: MemoryMedium,
    stuck: Mutex<bool>,
    changed: Condvar,
}

impl Stuck {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            inner: MemoryMedium::new(BLOCKS * u64::from(BLOCK_BYTES), BLOCK_BYTES)?,
            stuck: Mutex::new(false),
            changed: Condvar::new(),
        }))
    }

    fn set(&self, stuck: bool) {
        *self.stuck.lock().unwrap() = stuck;
        self.changed.notify_all();
    }

    fn pass(&self, wait: Wait) -> Result<(), MediumError> {
        let stuck = self.stuck.lock().unwrap();
        if *stuck && wait == Wait::Never {
            return Err(MediumError::WouldBlock);
        }
        drop(self.changed.wait_timeout_while(stuck, BLOCKED, |stuck| *stuck));
        Ok(())
    }
}

impl Medium for Stuck {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.pass(wait)?;
        self.inner.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.pass(wait)?;
        self.inner.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.pass(wait)?;
        self.inner.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.pass(wait)?;
        self.inner.unmap(offset_bytes, length_bytes, wait, cancel)
    }

    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_unmap: bool,
        durability: Durability,
        wait: Wait,
        cancel: &AtomicBool,
    ) -> Result<(), MediumError> {
        self.pass(wait)?;
        self.inner
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.pass(wait)?;
        self.inner.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.inner.resize(new_size_bytes)
    }
}

/// Lets everything go when a test ends, however it does.
struct Release(Arc<Stuck>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn unit(medium: Arc<dyn Medium>, serial: &str) -> Arc<LogicalUnit> {
    let identity = Identity {
        vendor: "farlun".into(),
        product: "disk".into(),
        revision: "1".into(),
        serial: serial.into(),
    };
    LogicalUnit::shared(medium, identity)
}

/// A target with both LUNs, and where it listens.
async fn serve() -> Result<(SocketAddr, Arc<Stuck>)> {
    let stuck = Stuck::new()?;
    let free = MemoryMedium::new(BLOCKS * u64::from(BLOCK_BYTES), BLOCK_BYTES)?;
    let luns = [
        (0, unit(Arc::clone(&stuck) as Arc<dyn Medium>, "stuck")),
        (1, unit(Arc::new(free), "free")),
    ];
    let target = Target::new(TARGET, None, Device::new(luns.into_iter().collect()));
    let server = Server::new(Node::new(Limits::default(), [target]));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        server.serve(listener, Portal::default(), std::future::pending()).await;
    });
    Ok((address, stuck))
}

async fn login(address: SocketAddr, name: &str) -> Result<Session<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let options = LoginOptions::new(format!("iqn.2026-11.net.farlun:{name}"), Some(TARGET));
    let mut session = Session::login(stream, &options).await?;
    for lun in [STUCK, FREE] {
        // The first answer of each LUN is the unit attention of a new nexus.
        session.test_unit_ready(lun).await?;
        session.test_unit_ready(lun).await?;
    }
    Ok(session)
}

fn write(lun: Lun, lba: u64) -> Command {
    let mut cdb = [0; 16];
    cdb[0] = 0x8A;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[13] = 1;
    Command::new(lun, cdb, Transfer::Out(vec![0x5A; BLOCK_BYTES as usize].into()))
}

fn read(lun: Lun, lba: u64) -> Command {
    let mut cdb = [0; 16];
    cdb[0] = 0x88;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[13] = 1;
    Command::new(lun, cdb, Transfer::In(BLOCK_BYTES))
}

/// Commands that hang on the stuck medium, every other one a read.
async fn hang(session: &mut Session<TcpStream>) -> Result<Vec<TaskTag>> {
    let before = session.in_flight();
    let submit = |lba| {
        session.submit(if lba % 2 == 0 {
            write(STUCK, lba)
        } else {
            read(STUCK, lba)
        })
    };
    let tags: Vec<TaskTag> = (0..HANGING).map(submit).collect::<Result<_, _>>()?;
    session.idle(Duration::from_millis(50)).await?;
    ensure!(
        session.in_flight() == before + tags.len(),
        "the medium is not stuck: {} of {HANGING} commands are in flight",
        session.in_flight() - before
    );
    Ok(tags)
}

async fn timed<T>(what: &str, limit: Duration, done: impl Future<Output = Result<T, initiator::Error>>) -> Result<T> {
    let start = Instant::now();
    let result = done.await.with_context(|| what.to_owned())?;
    let took = start.elapsed();
    println!("{what}: {took:?}");
    ensure!(took < limit, "{what} took {took:?}");
    Ok(result)
}

fn block_on<T>(test: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(test);
    // Threads that still hang on the medium are nobody's concern any more.
    runtime.shutdown_background();
    result
}

#[test]
fn aborts_are_answered_while_the_medium_is_not() -> Result<()> {
    block_on(async {
        let (address, stuck) = serve().await?;
        let _release = Release(Arc::clone(&stuck));
        let mut session = login(address, "one").await?;
        stuck.set(true);

        let tags = hang(&mut session).await?;
        let functions = [
            (TaskFunction::AbortTask, Some(tags[0])),
            (TaskFunction::AbortTask, Some(tags[1])),
            (TaskFunction::AbortTaskSet, None),
            (TaskFunction::ClearTaskSet, None),
            (TaskFunction::LogicalUnitReset, None),
            (TaskFunction::TargetWarmReset, None),
        ];
        for (function, tag) in functions {
            let ended = session.task_management(function, STUCK, tag);
            let outcome = timed(&format!("{function:?}"), ABORT_LIMIT, ended).await?;
            // A system call that hangs cannot be taken back, and the target does not say that it has been.
            ensure!(outcome == TaskOutcome::Rejected, "{function:?}: {outcome:?}");
            hang(&mut session).await?;
        }

        // Once the medium is back, so is the LUN, and what is aborted now is over.
        stuck.set(false);
        session.idle(Duration::from_millis(200)).await?;
        let reset = session.task_management(TaskFunction::LogicalUnitReset, STUCK, None);
        let outcome = timed("LUN reset of a medium that is back", ABORT_LIMIT, reset).await?;
        ensure!(outcome == TaskOutcome::Complete, "{outcome:?}");
        while session.test_unit_ready(STUCK).await?.status != 0 {}
        for lba in 0..4 {
            let block = vec![lba as u8; BLOCK_BYTES as usize];
            session.write16(STUCK, lba, BLOCK_BYTES, block, false).await?;
        }
        for lba in 0..4 {
            let found = session.read16(STUCK, lba, 1, BLOCK_BYTES).await?;
            ensure!(
                found.iter().all(|&byte| byte == lba as u8),
                "block {lba} is not as written"
            );
        }
        timed("logout", LOGOUT_LIMIT, session.logout()).await
    })
}

#[test]
fn a_logout_does_not_wait_for_the_medium() -> Result<()> {
    block_on(async {
        let (address, stuck) = serve().await?;
        let _release = Release(Arc::clone(&stuck));
        let mut session = login(address, "one").await?;
        stuck.set(true);
        hang(&mut session).await?;
        timed("logout", LOGOUT_LIMIT, session.logout()).await?;

        // Whoever comes next is served, and can leave as well.
        let stream = TcpStream::connect(address).await?;
        let options = LoginOptions::new("iqn.2026-11.net.farlun:two", Some(TARGET));
        let mut next = timed("login", LOGOUT_LIMIT, Session::login(stream, &options)).await?;
        next.test_unit_ready(FREE).await?;
        next.read16(FREE, 0, 1, BLOCK_BYTES).await?;
        timed("next logout", LOGOUT_LIMIT, next.logout()).await
    })
}

/// Reads per second of the LUN that is not stuck.
async fn speed(session: &mut Session<TcpStream>) -> Result<f64> {
    let start = Instant::now();
    let (mut lba, mut done) = (0_u64, 0_u32);
    let mut next = || {
        lba = (lba * 5 + 1) % BLOCKS;
        read(FREE, lba)
    };
    for _ in 0..DEPTH {
        session.submit(next())?;
    }
    while start.elapsed() < SLICE {
        // Those that hang say nothing meanwhile.
        session.next_completion().await?.result?.good("READ(16)")?;
        done += 1;
        session.submit(next())?;
    }
    for _ in 0..DEPTH {
        session.next_completion().await?.result?.good("READ(16)")?;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

/// Ends what hangs on the stuck medium, so that the next slice begins as the first one did.
async fn unstick(session: &mut Session<TcpStream>, stuck: &Stuck) -> Result<()> {
    stuck.set(false);
    while session.in_flight() > 0 {
        session.next_completion().await?.result?;
    }
    Ok(())
}

#[test]
fn the_lun_beside_it_keeps_its_speed() -> Result<()> {
    block_on(async {
        let (address, stuck) = serve().await?;
        let _release = Release(Arc::clone(&stuck));
        let mut hanging = login(address, "one").await?;
        let mut beside = login(address, "two").await?;
        let (mut free, mut other, mut same) = (0_f64, 0_f64, 0_f64);
        for _ in 0..SLICES {
            free = free.max(speed(&mut beside).await.context("beside an idle LUN")?);
            stuck.set(true);
            hang(&mut hanging).await?;
            other = other.max(speed(&mut beside).await.context("beside a stuck LUN")?);
            // The very session that has commands hanging is no slower for it.
            same = same.max(speed(&mut hanging).await.context("in the session that hangs")?);
            unstick(&mut hanging, &stuck).await.context("when the medium is back")?;
        }
        println!(
            "reads per second: {free:.0} beside an idle LUN, {other:.0} beside a stuck one, {same:.0} in its session"
        );
        ensure!(
            other >= SPEED_MIN * free,
            "another session: {other:.0} of {free:.0} reads per second"
        );
        ensure!(
            same >= SPEED_MIN * free,
            "the same session: {same:.0} of {free:.0} reads per second"
        );
        hanging.logout().await?;
        beside.logout().await?;
        Ok(())
    })
}
