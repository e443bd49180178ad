//! What a thin unit says of UNMAP and of unmapped blocks, and that it does as it says: the four ways to set it up.

mod scsi_support;

use std::sync::Arc;

use scsi_support::*;
use target_core::lun::MemoryMedium;
use target_core::scsi::{Device, LogicalUnit, LogicalUnitOptions, MediumOptions, Nexus};

const INVALID_OPCODE: (u8, u8, u8) = (0x05, 0x20, 0x00);
const INVALID_FIELD: (u8, u8, u8) = (0x05, 0x24, 0x00);
/// LBPU, LBPWS, LBPWS10 and LBPRZ in byte 5 of VPD page B2 (SBC-4 6.6.6).
const LBPU: u8 = 0x80;
const LBPWS: u8 = 0x40;
const LBPWS10: u8 = 0x20;
const LBPRZ: u8 = 0x04;

fn thin(no_unmap_command: bool, unmapped_reads_anything: bool) -> Nexus {
    let options = LogicalUnitOptions {
        medium: MediumOptions {
            no_unmap_command,
            unmapped_reads_anything,
            ..MediumOptions::default()
        },
        ..LogicalUnitOptions::default()
    };
    let medium = Arc::new(MemoryMedium::new(2048 * 512, 512).unwrap());
    let unit = LogicalUnit::with_options(medium, identity(), options);
    Device::new([(0, unit)].into())
        .attach("iqn.1993-08.org.debian:one", "port")
        .unwrap()
}

#[test]
fn pages_and_commands_agree() {
    for (no_unmap, anything) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = thin(no_unmap, anything);
        let expected = LBPWS | if no_unmap { 0 } else { LBPU } | if anything { LBPWS10 } else { LBPRZ };
        let at = format!("no_unmap_command {no_unmap}, unmapped_reads_anything {anything}");
        assert_eq!(good(&disk, &[0x12, 1, 0xB2, 0, 255, 0], &[])[5], expected, "{at}");

        let read_capacity = good(&disk, &cdb_16(0x9E, 0x10, 0, 32), &[]);
        assert_eq!(
            read_capacity[14] & 0xC0,
            if anything { 0x80 } else { 0xC0 },
            "LBPME, LBPRZ; {at}"
        );

        let limits = good(&disk, &[0x12, 1, 0xB0, 0, 255, 0], &[]);
        let (count, descriptors) = if no_unmap {
            ([0; 4], [0; 4])
        } else {
            ([0xFF; 4], [0, 0, 1, 0])
        };
        assert_eq!(
            (&limits[20..24], &limits[24..28]),
            (&count[..], &descriptors[..]),
            "{at}"
        );

        let block = [0xFF; 512];
        let list = unmap_list(&[(0, 256)]);
        let unmap = cdb_10(0x42, 0, 0, list.len() as u16);
        let write_same_10 = cdb_10(0x41, 0x08, 256, 256);
        if no_unmap {
            assert_eq!(refused(&disk, &unmap, &list), INVALID_OPCODE, "{at}");
        } else {
            good(&disk, &unmap, &list);
        }
        if anything {
            good(&disk, &write_same_10, &[0; 512]);
            assert_eq!(mapped_from(&disk, 256), Some(false), "{at}");
        } else {
            assert_eq!(refused(&disk, &write_same_10, &[0; 512]), INVALID_FIELD, "{at}");
        }
        // Whatever is promised, a pattern that was written is read again.
        good(&disk, &cdb_16(0x93, 0x08, 512, 256), &block);
        assert_eq!(good(&disk, &read_10(512, 1), &[]), block, "{at}");
        good(&disk, &cdb_16(0x93, 0x08, 512, 256), &[0; 512]);
        assert_eq!(mapped_from(&disk, 512), Some(false), "{at}");
    }
}

/// Whether the block is mapped (GET LBA STATUS, SBC-4 5.7).
fn mapped_from(disk: &Nexus, lba: u64) -> Option<bool> {
    let status = good(disk, &cdb_16(0x9E, 0x12, lba, 24), &[]);
    status.get(20).map(|status| status & 0x0F == 0)
}
