//! LUNs come, go, grow, shrink and go offline at random under random commands of several sessions, and nothing
//! lands where it must not.

mod scsi_support;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iscsi_pdu::{Isid, Lun, Response, ScsiCommand};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::answers::itt;
use support::{Direction, INITIATOR, TARGET, Wire, read10, write10};
use target_core::iscsi::job::Job;
use target_core::iscsi::{Limits, Node, Target};
use target_core::lun::{Medium, MemoryMedium, Wait};
use target_core::scsi::{ChangeError, Device, Identity, LogicalUnit, Removal, Slot};

const LUNS: u16 = 3;
const SESSIONS: usize = 2;
const BLOCKS: u64 = 16;

#[derive(Debug, Clone)]
enum Step {
    Add(u16),
    Remove(u16),
    Replace(u16),
    Offline(u16),
    Online(u16),
    Resize(u16, u64),
    ReadOnly(u16, bool),
    Login(usize),
    Logout(usize),
    /// Session, LUN, block.
    Write(usize, u16, u32),
    Read(usize, u16, u32),
    /// Runs one of a session's commands that were put off.
    Run(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lun = 0..LUNS;
    let session = 0..SESSIONS;
    // One more than there ever are.
    let block = 0..BLOCKS as u32 + 1;
    prop_oneof![
        1 => lun.clone().prop_map(Step::Add),
        1 => lun.clone().prop_map(Step::Remove),
        1 => lun.clone().prop_map(Step::Replace),
        1 => lun.clone().prop_map(Step::Offline),
        2 => lun.clone().prop_map(Step::Online),
        1 => (lun.clone(), 1..=BLOCKS).prop_map(|(lun, blocks)| Step::Resize(lun, blocks)),
        1 => (lun.clone(), any::<bool>()).prop_map(|(lun, on)| Step::ReadOnly(lun, on)),
        2 => session.clone().prop_map(Step::Login),
        1 => session.clone().prop_map(Step::Logout),
        12 => (session.clone(), lun.clone(), block.clone()).prop_map(|(s, l, b)| Step::Write(s, l, b)),
        6 => (session.clone(), lun, block).prop_map(|(s, l, b)| Step::Read(s, l, b)),
        16 => (session, any::<usize>()).prop_map(|(session, which)| Step::Run(session, which)),
    ]
}

/// A medium, and what has to be on it.
struct Disk {
    medium: Arc<MemoryMedium>,
    blocks: Vec<u8>,
    retired: bool,
}

/// A command that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Open {
    disk: Option<usize>,
    block: u32,
    /// What it writes; `None` for a read.
    value: Option<u8>,
}

struct World {
    node: Arc<Node>,
    target: Arc<Target>,
    disks: Vec<Disk>,
    sessions: Vec<Option<(Wire, BTreeMap<u32, Open>)>>,
    /// Commands whose sessions are gone.
    orphans: Vec<Job>,
    removals: Vec<(Removal, usize)>,
    logins: u8,
    value: u8,
    /// Commands that ended well.
    carried_out: usize,
}

impl World {
    fn new() -> Self {
        let target = Target::new(TARGET, None, Device::new(BTreeMap::new()));
        Self {
            node: Node::new(Limits::default(), [Arc::clone(&target)]),
            target,
            disks: Vec::new(),
            sessions: (0..SESSIONS).map(|_| None).collect(),
            orphans: Vec::new(),
            removals: Vec::new(),
            logins: 0,
            value: 0,
            carried_out: 0,
        }
    }

    fn new_unit(&mut self) -> Arc<LogicalUnit> {
        let medium = Arc::new(MemoryMedium::new(BLOCKS * 512, 512).expect("a small medium"));
        let identity = Identity {
            serial: self.disks.len().to_string(),
            ..scsi_support::identity()
        };
        self.disks.push(Disk {
            medium: Arc::clone(&medium),
            blocks: vec![0; BLOCKS as usize],
            retired: false,
        });
        LogicalUnit::shared(medium, identity)
    }

    /// Which disk is at a LUN, by its serial number.
    fn disk_at(&self, lun: u16) -> Option<usize> {
        let unit = self.target.device.unit(lun)?;
        Some(unit.identity().serial.parse().expect("a number"))
    }

    fn gone(&mut self, removal: Result<Removal, ChangeError>, disk: Option<usize>) {
        match (removal, disk) {
            (Ok(removal), Some(disk)) => {
                // Nothing runs between two steps.
                assert!(removal.is_drained());
                self.disks[disk].retired = true;
                self.removals.push((removal, disk));
            }
            (Ok(_), None) | (Err(ChangeError::Missing(_) | ChangeError::Offline(_)), _) => {}
            (Err(error), _) => panic!("{error}"),
        }
    }

    fn take(&mut self, step: &Step) {
        let device = Arc::clone(&self.target.device);
        match *step {
            Step::Add(lun) => {
                let unit = self.new_unit();
                assert_eq!(device.insert(lun, unit).is_ok(), !device_had(&device, lun, &self.disks));
            }
            Step::Remove(lun) => {
                let disk = self.disk_at(lun);
                self.gone(device.remove(lun), disk);
            }
            Step::Replace(lun) => {
                let (disk, unit) = (self.disk_at(lun), self.new_unit());
                self.gone(device.replace(lun, unit), disk);
            }
            Step::Offline(lun) => {
                let disk = self.disk_at(lun);
                let in_use = self.is_in_use(lun);
                match device.set_offline(lun) {
                    Err(ChangeError::InUse { holder, .. }) => {
                        assert!(in_use, "LUN {lun} is said to be in use by {holder}");
                    }
                    other => {
                        assert!(!(in_use && disk.is_some()), "LUN {lun} is in use");
                        self.gone(other, disk);
                    }
                }
            }
            Step::Online(lun) => {
                let unit = self.new_unit();
                let offline = matches!(device.slots().get(&lun), Some(Slot::Offline));
                assert_eq!(device.set_online(lun, unit).is_ok(), offline);
            }
            Step::Resize(lun, blocks) => {
                let Some((unit, disk)) = device.unit(lun).zip(self.disk_at(lun)) else {
                    return;
                };
                unit.resize(blocks * 512).expect("nothing runs");
                self.disks[disk].blocks.resize(blocks as usize, 0);
            }
            Step::ReadOnly(lun, on) => {
                if let Some(unit) = device.unit(lun) {
                    assert!(unit.set_read_only(on).is_drained());
                }
            }
            Step::Login(session) => {
                if self.sessions[session].is_none() {
                    self.logins += 1;
                    let isid = Isid([0x80, 0, 0, 0, 0, self.logins]);
                    let mut wire = Wire::logged_in_as(&self.node, INITIATOR, isid, &[]);
                    wire.hold = true;
                    self.sessions[session] = Some((wire, BTreeMap::new()));
                }
            }
            Step::Logout(session) => {
                if let Some((wire, _)) = &mut self.sessions[session] {
                    self.orphans.append(&mut wire.held);
                    self.sessions[session] = None;
                }
            }
            Step::Write(session, lun, block) => {
                self.value = self.value % 250 + 1;
                let value = self.value;
                self.command(session, lun, block, Some(value));
            }
            Step::Read(session, lun, block) => self.command(session, lun, block, None),
            Step::Run(session, which) => {
                let Some((wire, _)) = &mut self.sessions[session] else {
                    return;
                };
                if !wire.held.is_empty() {
                    let job = wire.held.remove(which % wire.held.len());
                    wire.run(job);
                }
            }
        }
    }

    fn is_in_use(&self, lun: u16) -> bool {
        let by_orphans = || {
            let here = self.target.device.unit(lun);
            let at = |job: &Job| {
                here.as_ref()
                    .is_some_and(|unit| Arc::ptr_eq(unit, job.execution.unit()))
            };
            self.orphans.iter().any(at)
        };
        self.sessions.iter().any(Option::is_some) || by_orphans()
    }

    fn command(&mut self, session: usize, lun: u16, block: u32, value: Option<u8>) {
        let disk = self.disk_at(lun);
        let Some((wire, open)) = &mut self.sessions[session] else {
            return;
        };
        // Like the server, which looks at its mailbox before it looks at its socket.
        wire.pump();
        let command = match value {
            Some(_) => wire.command(&write10(block, 1), Direction::Write, 512),
            None => wire.command(&read10(block, 1), Direction::Read, 512),
        };
        let command = ScsiCommand {
            lun: Lun::from_number(lun),
            ..command
        };
        let data = value.map_or(Vec::new(), |value| vec![value; 512]);
        open.insert(command.itt, Open { disk, block, value });
        wire.send(&command, &data);
    }

    /// Takes the answers, and what they mean for the disks.
    fn judge(&mut self) {
        for (wire, open) in self.sessions.iter_mut().flatten() {
            wire.pump();
            assert_eq!(wire.connection.ended(), None, "no session is dropped");
            while let Some((response, data)) = wire.answers.pop_front() {
                let command = open.remove(&itt(&response)).expect("an answer to a command");
                let disk = command.disk.map(|disk| &mut self.disks[disk]);
                let ended = match &response {
                    Response::DataIn(pdu) if pdu.status.is_some() => Ok(()),
                    Response::ScsiResponse(pdu) if pdu.status == 0 => Ok(()),
                    _ => Err(support::answers::sense((response.clone(), data.clone()))),
                };
                let block = command.block as usize;
                match (ended, disk) {
                    (Ok(()), Some(disk)) => {
                        assert!(!disk.retired, "{command:?} was carried out at a disk that is gone");
                        assert!(block < disk.blocks.len(), "{command:?} was beyond the end");
                        self.carried_out += 1;
                        match command.value {
                            Some(value) => disk.blocks[block] = value,
                            None => assert_eq!(data, [disk.blocks[block]; 512], "{command:?}"),
                        }
                    }
                    (Ok(()), None) => panic!("{command:?} was carried out nowhere"),
                    // Unit attentions, and what is true.
                    (Err((0x6, code, qualifier)), _) => assert!(
                        [(0x3F, 0x0E), (0x3F, 0x03), (0x28, 0), (0x2A, 0x01), (0x2A, 0x09)]
                            .contains(&(code, qualifier)),
                        "{command:?}: {code:02x}/{qualifier:02x}"
                    ),
                    (Err((0x5, 0x25, 0)), disk) => {
                        assert!(disk.is_none_or(|disk| disk.retired), "{command:?}: it is there");
                    }
                    (Err((0x2, 0x04, 0x12)), disk) => assert!(disk.is_none(), "{command:?}: it is online"),
                    (Err((0x5, 0x21, 0)), Some(disk)) => {
                        // It may have grown since the command came.
                        assert!(command.block > 0 && disk.blocks.len() <= BLOCKS as usize, "{command:?}");
                    }
                    (Err((0x7, 0x27, 0)), Some(_)) => assert!(command.value.is_some(), "{command:?}"),
                    (Err(sense), _) => panic!("{command:?}: {sense:02x?}"),
                }
            }
        }
    }

    fn look_at_disks(&self) {
        for (number, disk) in self.disks.iter().enumerate() {
            let mut data = Vec::new();
            let size = disk.blocks.len() * 512;
            disk.medium.read(0, size, &mut data, Wait::Allowed).expect("memory");
            let blocks: Vec<u8> = data.chunks(512).map(|block| block[0]).collect();
            assert_eq!(blocks, disk.blocks, "disk {number}");
        }
    }

    /// At the end everything is run that was put off, and every medium that is gone is closed.
    fn finish(mut self) {
        for orphan in std::mem::take(&mut self.orphans) {
            orphan.run(Wait::Allowed).expect("workers may block");
        }
        for session in 0..SESSIONS {
            while self.sessions[session]
                .as_ref()
                .is_some_and(|(wire, _)| !wire.held.is_empty())
            {
                self.take(&Step::Run(session, 0));
            }
        }
        self.judge();
        self.look_at_disks();
        for (_, open) in self.sessions.iter().flatten() {
            assert!(open.is_empty(), "never answered: {open:?}");
        }
        for (mut removal, disk) in std::mem::take(&mut self.removals) {
            removal.flush().expect("memory");
            assert!(removal.is_closed());
            assert_eq!(Arc::strong_count(&self.disks[disk].medium), 1);
        }
    }
}

/// Whether a LUN was there before a disk was made for it just now.
fn device_had(device: &Device, lun: u16, disks: &[Disk]) -> bool {
    let newest = disks.len() - 1;
    match device.slots().get(&lun) {
        Some(Slot::Online(unit)) => unit.identity().serial != newest.to_string(),
        Some(Slot::Offline) => true,
        None => false,
    }
}

#[test]
fn nothing_lands_where_it_must_not() {
    let carried_out = AtomicUsize::new(0);
    let config = ProptestConfig {
        cases: 150,
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let steps = proptest::collection::vec(step(), 1..120);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new();
        (0..LUNS).for_each(|lun| world.take(&Step::Add(lun)));
        (0..SESSIONS).for_each(|session| world.take(&Step::Login(session)));
        for step in &steps {
            world.take(step);
            world.judge();
            world.look_at_disks();
        }
        carried_out.fetch_add(world.carried_out, Ordering::Relaxed);
        world.finish();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let carried_out = carried_out.into_inner();
    assert!(
        carried_out > 400,
        "only {carried_out} commands ended well: this has shown nothing"
    );
}
