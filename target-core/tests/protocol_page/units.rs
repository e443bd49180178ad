//! The kinds of LUN that the page tells apart.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use target_core::lun::{
    AtomicWrites, Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Provisioning, Space, Wait,
    WriteCache,
};
use target_core::scsi::{Device, LogicalUnit, LogicalUnitOptions, MediumOptions, Nexus};

use crate::page::{self, Sense};
use crate::scsi_support::{device, identity};

/// Blocks of every LUN.
pub const BLOCKS: u64 = 4096;
/// Used space that initiators are told of.
const THRESHOLD_PERCENT: u8 = 50;
const OTHER: &str = "iqn.2026-11.example:other";
const OTHER_PORT: &str = "iqn.2026-11.example:other,i,0x00023d000002";

/// One LUN of each kind. What is not in the name is as for `Thin`: memory that can give space back, overwrites in
/// place and writes atomically, without a cache, in blocks of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Thin,
    Thick,
    LargeBlocks,
    WriteBack,
    CopyOnWrite,
    /// The LUN may not be written.
    ReadOnly,
    /// Nor may the medium, which was opened so.
    ReadOnlyMedium,
    Removable,
    CopyOffload,
    /// Configured not to offer UNMAP, only WRITE SAME.
    NoUnmap,
    /// Configured not to promise that unmapped blocks are zeroes.
    NoZeroes,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Thin,
        Self::Thick,
        Self::LargeBlocks,
        Self::WriteBack,
        Self::CopyOnWrite,
        Self::ReadOnly,
        Self::ReadOnlyMedium,
        Self::Removable,
        Self::CopyOffload,
        Self::NoUnmap,
        Self::NoZeroes,
    ];

    pub fn block_bytes(self) -> u32 {
        if self == Self::LargeBlocks { 4096 } else { 512 }
    }

    pub fn may_be_written(self) -> bool {
        !matches!(self, Self::ReadOnly | Self::ReadOnlyMedium)
    }

    fn copies(self) -> bool {
        matches!(self, Self::CopyOffload | Self::Removable | Self::ReadOnly)
    }

    pub fn unit(self) -> Arc<LogicalUnit> {
        let size_bytes = BLOCKS * u64::from(self.block_bytes());
        let memory = MemoryMedium::new(size_bytes, self.block_bytes()).expect("small enough");
        let options = LogicalUnitOptions {
            shared: true,
            read_only: self == Self::ReadOnly,
            medium: MediumOptions {
                removable: self == Self::Removable,
                copy_offload: self.copies(),
                threshold_percent: Some(THRESHOLD_PERCENT),
                no_unmap_command: self == Self::NoUnmap,
                unmapped_reads_anything: self == Self::NoZeroes,
            },
        };
        LogicalUnit::with_options(Arc::new(Shaped { kind: self, memory }), identity(), options)
    }

    pub fn device(self) -> Arc<Device> {
        device([(0, self.unit())])
    }

    /// A fresh device with one nexus that has heard all unit attentions.
    pub fn nexus(self) -> Nexus {
        attach(&self.device())
    }
}

/// A nexus of the first initiator, with nothing pending.
pub fn attach(device: &Arc<Device>) -> Nexus {
    let nexus = device
        .attach(crate::scsi_support::INITIATOR, crate::scsi_support::PORT)
        .expect("shared");
    settle(&nexus);
    nexus
}

/// A nexus of another initiator, with nothing pending.
pub fn attach_other(device: &Arc<Device>) -> Nexus {
    let nexus = device.attach(OTHER, OTHER_PORT).expect("shared");
    settle(&nexus);
    nexus
}

/// Takes whatever unit attentions there are.
pub fn settle(nexus: &Nexus) {
    const REQUEST_SENSE: [u8; 6] = [0x03, 0, 0, 0, 252, 0];
    while crate::scsi_support::good(nexus, &REQUEST_SENSE, &[])[2] & 0x0F == 0x06 {}
}

/// What the page says of where a command or page is there: on which kinds of LUN, and what the others answer.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    on: fn(Kind) -> bool,
    pub otherwise: Option<Sense>,
}

impl Offered {
    /// Reads `yes` or `thin, else 05/20/00`.
    pub fn read(text: &str) -> Option<Self> {
        if text == "yes" {
            return Some(Self {
                on: |_| true,
                otherwise: None,
            });
        }
        let (kind, sense) = text.split_once(", else ")?;
        let on: fn(Kind) -> bool = match kind {
            "thin" => |kind| kind != Kind::Thick,
            "UNMAP" => |kind| !matches!(kind, Kind::Thick | Kind::NoUnmap),
            "writable" => |kind| kind != Kind::ReadOnlyMedium,
            "overwriting" => |kind| !matches!(kind, Kind::CopyOnWrite | Kind::ReadOnlyMedium),
            "thin, writable" => |kind| !matches!(kind, Kind::Thick | Kind::ReadOnlyMedium),
            "atomic" => |kind| kind != Kind::CopyOnWrite,
            "removable" => |kind| kind == Kind::Removable,
            "copy offload" => Kind::copies,
            _ => return None,
        };
        Some(Self {
            on,
            otherwise: Some(page::sense(sense)?),
        })
    }

    pub fn on(self, kind: Kind) -> bool {
        (self.on)(kind)
    }
}

/// Memory with the properties of another kind of medium.
#[derive(Debug)]
struct Shaped {
    kind: Kind,
    memory: MemoryMedium,
}

impl Medium for Shaped {
    fn properties(&self) -> Properties {
        let mut properties = Properties {
            write_cache: WriteCache::WriteThrough,
            overwrites_in_place: true,
            atomic: Some(AtomicWrites {
                unit_bytes: self.kind.block_bytes(),
                max_bytes: 64 * 1024,
            }),
            physical_block_bytes: 4096,
            provisioning: Some(Provisioning {
                granularity_bytes: 4096,
                alignment_bytes: 0,
                reads_zeroes: true,
            }),
            zeroes_quickly: self.kind != Kind::Thick,
            read_only: false,
            ..self.memory.properties()
        };
        match self.kind {
            Kind::Thick => properties.provisioning = None,
            Kind::WriteBack => properties.write_cache = WriteCache::WriteBack,
            Kind::CopyOnWrite => {
                properties.overwrites_in_place = false;
                properties.atomic = None;
            }
            Kind::ReadOnlyMedium => properties.read_only = true,
            _ => {}
        }
        properties
    }

    /// More than [`THRESHOLD_PERCENT`] of the storage is used.
    fn space(&self) -> Option<Space> {
        Some(Space {
            used_bytes: self.size_bytes() / 2,
            available_bytes: self.size_bytes() / 2 - 1,
            total_bytes: self.size_bytes(),
        })
    }

    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read(&self, offset_bytes: u64, length_bytes: usize, out: &mut Vec<u8>, wait: Wait) -> Result<(), MediumError> {
        self.memory.read(offset_bytes, length_bytes, out, wait)
    }

    fn write(&self, offset_bytes: u64, data: &[u8], durability: Durability, wait: Wait) -> Result<(), MediumError> {
        self.memory.write(offset_bytes, data, durability, wait)
    }

    fn write_atomic(
        &self,
        offset_bytes: u64,
        data: &[u8],
        durability: Durability,
        wait: Wait,
    ) -> Result<(), MediumError> {
        self.memory.write(offset_bytes, data, durability, wait)
    }

    fn flush(&self, wait: Wait) -> Result<(), MediumError> {
        self.memory.flush(wait)
    }

    fn unmap(&self, offset_bytes: u64, length_bytes: u64, wait: Wait, cancel: &AtomicBool) -> Result<(), MediumError> {
        self.memory.unmap(offset_bytes, length_bytes, wait, cancel)
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
        self.memory
            .write_zeroes(offset_bytes, length_bytes, may_unmap, durability, wait, cancel)
    }

    fn allocation(&self, offset_bytes: u64, wait: Wait) -> Result<Extent, MediumError> {
        self.memory.allocation(offset_bytes, wait)
    }

    fn resize(&self, new_size_bytes: u64) -> Result<(), MediumError> {
        self.memory.resize(new_size_bytes)
    }
}
