//! The kinds of LUN that the page tells apart.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait, WriteCache};
use target_core::scsi::{Device, LogicalUnit, LogicalUnitOptions, Nexus};

use crate::scsi_support::{device, identity};

/// Blocks of every LUN.
pub const BLOCKS: u64 = 4096;
pub const OTHER: &str = "iqn.2026-11.example:other";
pub const OTHER_PORT: &str = "iqn.2026-11.example:other,i,0x00023d000002";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Thin,
    LargeBlocks,
    Thick,
    ReadOnly,
    WriteBack,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Thin,
        Self::LargeBlocks,
        Self::Thick,
        Self::ReadOnly,
        Self::WriteBack,
    ];

    pub fn block_bytes(self) -> u32 {
        if self == Self::LargeBlocks { 4096 } else { 512 }
    }

    pub fn unit(self) -> Arc<LogicalUnit> {
        let size_bytes = BLOCKS * u64::from(self.block_bytes());
        let memory = MemoryMedium::new(size_bytes, self.block_bytes()).expect("small enough");
        let medium = Arc::new(Shaped { kind: self, memory });
        let options = LogicalUnitOptions {
            shared: true,
            read_only: self == Self::ReadOnly,
            ..Default::default()
        };
        LogicalUnit::with_options(medium, identity(), options)
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
    while crate::scsi_support::good(nexus, &REQUEST_SENSE, &[])[2] & 0x0F != 0 {}
}

/// What the page says of where a command, page or parameter is there: `yes`, or the kinds of LUN that have it, and
/// what the others answer.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    only: Option<fn(Kind) -> bool>,
    pub otherwise: Option<crate::page::Sense>,
}

impl Offered {
    /// Reads `yes` or `thin, else 05/20/00`.
    pub fn read(text: &str) -> Option<Self> {
        if text == "yes" {
            return Some(Self {
                only: None,
                otherwise: None,
            });
        }
        let (kind, sense) = text.split_once(", else ")?;
        let only: fn(Kind) -> bool = match kind {
            "thin" => |kind| kind != Kind::Thick,
            _ => return None,
        };
        Some(Self {
            only: Some(only),
            otherwise: Some(crate::page::sense(sense)?),
        })
    }

    pub fn on(self, kind: Kind) -> bool {
        self.only.is_none_or(|has| has(kind))
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
        let mut properties = self.memory.properties();
        match self.kind {
            Kind::Thick => properties.provisioning = None,
            Kind::WriteBack => properties.write_cache = WriteCache::WriteBack,
            _ => {}
        }
        properties
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
