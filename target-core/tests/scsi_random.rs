//! Whatever initiators send: no panic, no answer longer than announced, and sense data that is well formed in the
//! format they have chosen.

mod scsi_support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use scsi_support::*;
use target_core::lun::Wait;
use target_core::scsi::{LogicalUnit, Mode, Nexus, Prepared, ReservationStore, Response, Saved, Status, TargetPort};

/// Blocks of the unit: few, so that ranges often fit.
const BLOCKS: u64 = 64;

/// Operation codes there are, with service actions; others come up as well.
const KNOWN: [(u8, u8); 58] = [
    (0x00, 0),
    (0x03, 0),
    (0x08, 0),
    (0x0A, 0),
    (0x12, 0),
    (0x15, 0x10),
    (0x16, 0),
    (0x17, 0),
    (0x1A, 0),
    (0x1B, 0),
    (0x1C, 1),
    (0x1D, 4),
    (0x1E, 0),
    (0x25, 0),
    (0x28, 0),
    (0x2A, 0),
    (0x2E, 0),
    (0x2F, 0),
    (0x34, 0),
    (0x35, 0),
    (0x37, 0),
    (0x41, 0),
    (0x42, 0),
    (0x4C, 0),
    (0x4D, 0),
    (0x55, 0x10),
    (0x5A, 0),
    (0x5E, 0),
    (0x5E, 1),
    (0x5E, 2),
    (0x5E, 3),
    (0x5F, 0),
    (0x5F, 1),
    (0x5F, 2),
    (0x5F, 3),
    (0x5F, 4),
    (0x5F, 5),
    (0x5F, 6),
    (0x5F, 7),
    (0x88, 0),
    (0x89, 0),
    (0x8A, 0),
    (0x8B, 0),
    (0x8E, 0),
    (0x8F, 0),
    (0x90, 0),
    (0x91, 0),
    (0x93, 0),
    (0x9E, 0x10),
    (0x9E, 0x12),
    (0xA0, 0),
    (0xA3, 0x0A),
    (0xA3, 0x0C),
    (0xA3, 0x0D),
    (0xA8, 0),
    (0xAA, 0),
    (0xAE, 0),
    (0xAF, 0),
];

/// Bytes that mean something more often than others do.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(0_u8),
        2 => prop::sample::select(vec![0x01, 0x02, 0x04, 0x08, 0x0A, 0x10, 0x18, 0x19, 0x1C, 0x20, 0x3F, 0x40, 0x80, 0x83, 0xFF]),
        1 => any::<u8>(),
    ]
}

fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let known = (
        prop::sample::select(KNOWN.to_vec()),
        prop::collection::vec(byte(), 14),
        any::<bool>(),
    )
        .prop_map(|((opcode, second), rest, plain)| {
            let second = if plain { second } else { second | rest[0] & 0xE0 };
            let mut cdb = [&[opcode, second][..], &rest].concat();
            // CONTROL, wherever it stands, is mostly zero.
            if let (true, Some(control)) = (plain, [5, 9, 9, 0, 15, 11, 0, 0].get(usize::from(opcode >> 5))) {
                cdb[*control.max(&5)] = 0;
            }
            cdb
        });
    prop_oneof![8 => known, 1 => prop::collection::vec(any::<u8>(), 0..=16)]
}

/// Takes everything and keeps nothing.
#[derive(Debug)]
struct Nowhere;

impl ReservationStore for Nowhere {
    fn load(&self) -> std::io::Result<Option<Saved>> {
        Ok(None)
    }

    fn save(&self, _: &Saved) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// By which of two initiators, and how much of a fitting or random parameter list.
    Command {
        who: bool,
        cdb: Vec<u8>,
        data: Vec<u8>,
    },
    Reset {
        who: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<bool>(), cdb(), prop::collection::vec(byte(), 0..40), byte(), 0..1100_usize)
            .prop_map(|(who, cdb, mut data, fill, length)| {
                data.resize(length, fill);
                Step::Command { who, cdb, data }
            }),
        1 => any::<bool>().prop_map(|who| Step::Reset { who }),
    ]
}

/// Mode parameter lists, reservations and the like, whose lengths have to fit to get anywhere.
fn fitting() -> impl Strategy<Value = Step> {
    let select = (prop::sample::select(vec![0x08_u8, 0x0A]), byte(), byte()).prop_map(|(page, second, fourth)| {
        let mut list = vec![0, 0, 0, 0, page, if page == 0x08 { 18 } else { 10 }];
        list.resize(4 + if page == 0x08 { 20 } else { 12 }, 0);
        list[6] = second;
        list[8] = fourth;
        if page == 0x0A {
            list[7] = 0x10;
        }
        (vec![0x15, 0x10, 0, 0, list.len() as u8, 0], list)
    });
    let reserve = (0..8_u8, 0..9_u8, 0..3_u8, 0..3_u8, byte()).prop_map(|(action, kind, key, new_key, flags)| {
        let mut list = vec![0; 24];
        list[7] = key;
        list[15] = new_key;
        list[20] = flags;
        (vec![0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], list)
    });
    (any::<bool>(), prop_oneof![select, reserve]).prop_map(|(who, (cdb, data))| Step::Command { who, cdb, data })
}

/// Sense data as SPC-5 4.4 wants it.
fn check_sense(sense: &[u8]) {
    match sense[0] & 0x7F {
        0x70 => {
            assert_eq!(sense.len(), 18, "{sense:02x?}");
            assert_eq!(sense[7], 10, "ADDITIONAL SENSE LENGTH: {sense:02x?}");
            assert!(
                sense[0] & 0x80 != 0 || sense[3..7] == [0; 4],
                "INFORMATION without VALID: {sense:02x?}"
            );
            check_specific(sense[2] & 0x0F, sense[12], &sense[15..18]);
        }
        0x72 => {
            assert_eq!(sense[0], 0x72, "{sense:02x?}");
            assert_eq!(sense.len(), 8 + usize::from(sense[7]), "{sense:02x?}");
            assert!(sense.len() <= 28, "longer than VPD 86 says: {sense:02x?}");
            let mut rest = &sense[8..];
            let mut last = None;
            while !rest.is_empty() {
                let (kind, length) = (rest[0], usize::from(rest[1]));
                assert!(last < Some(kind), "each once: {sense:02x?}");
                last = Some(kind);
                match kind {
                    0x00 => assert_eq!((length, rest[2]), (0x0A, 0x80), "{sense:02x?}"),
                    0x02 => {
                        assert_eq!(length, 0x06, "{sense:02x?}");
                        check_specific(sense[1], sense[2], &rest[4..7]);
                    }
                    _ => panic!("no such descriptor is ours: {sense:02x?}"),
                }
                rest = &rest[2 + length..];
            }
        }
        code => panic!("response code {code:02x}"),
    }
}

/// Field pointers say that they are valid, and belong to fields that can be pointed at.
fn check_specific(key: u8, code: u8, specific: &[u8]) {
    if specific == [0; 3] {
        return;
    }
    assert_eq!(specific[0] & 0x80, 0x80, "SKSV");
    if key == 0x5 {
        assert!(matches!(code, 0x24 | 0x26), "a field pointer with {code:02x}");
        // C/D: into the CDB or into the parameter list.
        assert_eq!(specific[0] & 0x40 != 0, code == 0x24);
    }
}

fn check_response(cdb: &[u8], response: &Response) {
    match response.status {
        Status::CheckCondition => {
            check_sense(&response.sense);
            assert!(response.data_in.is_empty(), "{cdb:02x?}");
        }
        _ => assert!(response.sense.is_empty(), "{cdb:02x?}: {response:?}"),
    }
    if response.status != Status::Good {
        assert!(response.data_in.is_empty(), "{cdb:02x?}");
    }
}

fn send(nexus: &Nexus, cdb: &[u8], data: &[u8]) {
    let response = match nexus.prepare(LUN0, cdb) {
        Prepared::Done(response) => response,
        Prepared::Run(execution) => {
            let cancel = AtomicBool::new(false);
            let announced = execution.data_in_bytes();
            let response = execution
                .run(data, Wait::Never, &cancel)
                .or_else(|_| execution.run(data, Wait::Allowed, &cancel))
                .expect("nothing blocks that may wait");
            assert!(response.data_in.len() as u64 <= announced, "{cdb:02x?}");
            response
        }
    };
    check_response(cdb, &response);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_command_is_too_strange(steps in prop::collection::vec(prop_oneof![4 => step(), 1 => fitting()], 1..60)) {
        let unit = LogicalUnit::shared(memory(BLOCKS), identity());
        unit.keep_reservations(Arc::new(Nowhere)).unwrap();
        let device = device([(0, unit)]);
        device.set_target_ports(vec![1, 2]);
        let nexuses: Vec<Nexus> = [(1, "one"), (2, "two")]
            .into_iter()
            .map(|(tag, name)| {
                let name = format!("iqn.2026-11.example:{name}");
                let port = format!("{name},i,0x00023d000001");
                let target_port = TargetPort::new("iqn.2026-11.example:disks", tag);
                device.attach_to(target_port, &name, &port, &|_| Some(Mode::ReadWrite)).unwrap()
            })
            .collect();
        for step in &steps {
            match step {
                Step::Command { who, cdb, data } => send(&nexuses[usize::from(*who)], cdb, data),
                Step::Reset { who } => {
                    nexuses[usize::from(*who)].reset_lun(LUN0);
                }
            }
        }
        // The same in the other format.
        let list = [0, 0, 0, 0, 0x0A, 10, 0x04, 0x10, 0, 0x40, 0, 0, 0, 0, 0, 0];
        for step in &steps {
            nexuses[0].reset_lun(LUN0);
            send(&nexuses[0], &[0; 6], &[]);
            send(&nexuses[0], &[0x15, 0x10, 0, 0, 16, 0], &list);
            if let Step::Command { cdb, data, .. } = step {
                send(&nexuses[0], cdb, data);
            }
        }
    }
}
