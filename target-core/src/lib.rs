//! The iSCSI target: media, the SCSI command core, the iSCSI state machines, and the tokio shell around them.
//!
//! Read it from the outside in: [`server`] moves bytes, [`iscsi`] decides what they mean, [`scsi`] carries a
//! command out, [`lun`] is where the blocks are.
#![forbid(unsafe_code)]

pub mod iscsi;
pub mod lun;
pub mod scsi;
pub mod server;
