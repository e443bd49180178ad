//! A unit taken out of service is flushed and closed, and whoever wants its file gets it.

mod scsi_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use scsi_support::gate::Gate;
use scsi_support::{INITIATOR, PORT, execution, finish, good, identity, write_10};
use target_core::lun::{FileMedium, FileOptions, OpenError};
use target_core::scsi::{Device, LogicalUnit, Mode};
use target_core::server::{CloseError, close};

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> FileOptions {
    FileOptions {
        block_bytes: 512,
        ..FileOptions::default()
    }
}

#[tokio::test]
async fn the_file_of_a_closed_unit_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let medium = FileMedium::create(&path, 64 * 512, options()).unwrap();
    let unit = LogicalUnit::new(Arc::new(medium), identity());
    let device = Device::new(BTreeMap::from([(0, unit)]));
    let mut nexus = device.attach(INITIATOR, PORT).unwrap();
    good(&nexus, &write_10(3, 1), &[7; 512]);
    let removal = device.remove(0).unwrap();
    // As long as a session knows it.
    assert!(matches!(
        FileMedium::open(&path, options()),
        Err(OpenError::InUse { .. })
    ));
    let closing = tokio::spawn(close(removal, PATIENCE));
    nexus.refresh(&|_| Some(Mode::ReadWrite));
    closing.await.unwrap().unwrap();
    drop(FileMedium::open(&path, options()).expect("its lock is released"));
    assert_eq!(std::fs::read(&path).unwrap()[3 * 512..4 * 512], [7; 512]);
}

#[tokio::test]
async fn a_unit_that_hangs_is_closed_when_it_does_not_hang_any_more() {
    let gate = Gate::new(64);
    let device = Device::new(BTreeMap::from([(
        0,
        LogicalUnit::new(gate.clone() as Arc<_>, identity()),
    )]));
    let nexus = device.attach(INITIATOR, PORT).unwrap();
    let write = execution(&nexus, &write_10(0, 1));
    gate.shut();
    let worker = thread::spawn(move || drop(finish(&write, &[1; 512])));
    gate.wait_for(1);
    let removal = device.remove(0).unwrap();
    drop(nexus);
    let before = Instant::now();
    let within = Duration::from_millis(50);
    assert!(matches!(close(removal, within).await, Err(CloseError::Busy)));
    assert!(before.elapsed() >= within);
    assert!(Arc::strong_count(&gate) > 1, "it is not let go under a write");
    gate.open();
    worker.join().unwrap();
    while Arc::strong_count(&gate) > 1 {
        assert!(before.elapsed() < PATIENCE, "nobody goes on waiting for it");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
