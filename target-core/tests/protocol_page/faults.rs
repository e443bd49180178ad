//! Media on which nothing works.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use target_core::lun::{Durability, Extent, Medium, MediumError, MemoryMedium, Properties, Wait};
use target_core::scsi::{LogicalUnit, LogicalUnitOptions, Nexus};

use crate::scsi_support::{device, identity, memory};
use crate::units::{self, BLOCKS};

/// What is wrong with a medium.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Broken,
    Full,
    /// Writes stop half-way.
    Half,
}

impl Fault {
    fn error(self) -> MediumError {
        match self {
            Self::Broken => std::io::Error::from_raw_os_error(5).into(),
            Self::Full => MediumError::NoSpace,
            Self::Half => MediumError::PartlyWritten,
        }
    }
}

/// A nexus of a LUN with such a medium.
pub fn broken(fault: Fault) -> Nexus {
    let medium = Arc::new(Faulty {
        fault,
        inner: memory(BLOCKS),
    });
    let unit = LogicalUnit::with_options(medium, identity(), LogicalUnitOptions::default());
    units::attach(&device([(0, unit)]))
}

/// A medium that fails at everything.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: Arc<MemoryMedium>,
}

impl Medium for Faulty {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read(&self, _: u64, _: usize, _: &mut Vec<u8>, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn write(&self, _: u64, _: &[u8], _: Durability, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn flush(&self, _: Wait) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn unmap(&self, _: u64, _: u64, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool, _: Durability, _: Wait, _: &AtomicBool) -> Result<(), MediumError> {
        Err(self.fault.error())
    }

    fn allocation(&self, _: u64, _: Wait) -> Result<Extent, MediumError> {
        Err(self.fault.error())
    }

    fn resize(&self, _: u64) -> Result<(), MediumError> {
        Err(self.fault.error())
    }
}
