//! Thick and thin, read-only, full and resized: media on real file systems and devices, and what initiators see of it.
//!
//! Takes root: small file systems are mounted and loop devices made, and put away again.

mod scsi_support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scsi_support::{good, nexus, read_10, refused, unmap_cdb, unmap_list, write_10};
use target_core::lun::{
    Allocation, BlockMedium, Durability, Extent, FileMedium, FileOptions, Medium, MediumError, MemoryMedium,
    MemoryOptions, OpenError, Wait,
};

const MIB: u64 = 1 << 20;
static CALM: AtomicBool = AtomicBool::new(false);

const THICK: FileOptions = FileOptions {
    block_bytes: 512,
    physical_block_bytes: None,
    write_cache: target_core::lun::WriteCache::WriteBack,
    allocation: Allocation::Thick,
    read_only: false,
};

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed (this test needs root): {errors}"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A small file system of its own.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(size: &str) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(mount.at()).unwrap();
        command(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "tmpfs",
                mount.at().to_str().unwrap(),
            ],
        );
        mount
    }

    fn ext4(size_bytes: u64) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        let image = mount.0.path().join("image");
        File::create_new(&image).unwrap().set_len(size_bytes).unwrap();
        command("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        std::fs::create_dir(mount.at()).unwrap();
        command(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), mount.at().to_str().unwrap()],
        );
        mount
    }

    fn at(&self) -> PathBuf {
        self.0.path().join("mnt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at().join(name)
    }

    fn remount_read_only(&self) {
        command("mount", &["-o", "remount,ro", self.at().to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.at()).status();
    }
}

/// A loop device over a file.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, more: &[&str]) -> Self {
        let mut arguments = vec!["--find", "--show"];
        arguments.extend_from_slice(more);
        arguments.push(file.to_str().unwrap());
        Self(command("losetup", &arguments).into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn write(medium: &dyn Medium, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
    medium.write(offset_bytes, data, Durability::Cached, Wait::Allowed)
}

fn read(medium: &dyn Medium, offset_bytes: u64, length_bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    medium
        .read(offset_bytes, length_bytes, &mut data, Wait::Allowed)
        .unwrap();
    data
}

fn allocated_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Takes what is left of a file system.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = File::create_new(path).unwrap();
    for chunk_bytes in [1 << 20, 4096] {
        while file.write_all(&vec![1; chunk_bytes]).is_ok() {}
    }
    let _ = file.sync_all();
}

#[test]
fn a_thick_file_has_all_its_space_and_keeps_it() {
    for mount in [Mount::ext4(64 * MIB), Mount::tmpfs("64m")] {
        let path = mount.path("lun");
        let medium = FileMedium::create(&path, 16 * MIB, THICK).unwrap();
        assert!(allocated_bytes(&path) >= 16 * MIB);
        assert_eq!(medium.properties().provisioning, None);
        assert!(medium.unmap(0, MIB, Wait::Allowed, &CALM).is_err());
        write(&medium, 4096, &[7; 8192]).unwrap();
        let all = Extent {
            length_bytes: 15 * MIB,
            mapped: true,
        };
        assert_eq!(medium.allocation(MIB, Wait::Allowed).unwrap(), all);
        for may_unmap in [false, true] {
            medium
                .write_zeroes(0, 16 * MIB, may_unmap, Durability::Stable, Wait::Allowed, &CALM)
                .unwrap();
            assert!(allocated_bytes(&path) >= 16 * MIB, "zeroes in place");
        }
        assert_eq!(read(&medium, 4096, 8192), [0; 8192]);
        // Others take the rest; this one does not need any.
        fill(&mount.path("others"));
        for offset_bytes in (0..16 * MIB).step_by(1 << 20) {
            write(&medium, offset_bytes, &vec![5; 1 << 20]).unwrap();
        }
        medium.flush(Wait::Allowed).unwrap();
        // Growing needs some, and fails as a whole without.
        assert!(matches!(medium.resize(48 * MIB), Err(MediumError::NoSpace)));
        assert_eq!(
            (medium.size_bytes(), std::fs::metadata(&path).unwrap().len()),
            (16 * MIB, 16 * MIB)
        );
        std::fs::remove_file(mount.path("others")).unwrap();
        medium.resize(24 * MIB).unwrap();
        assert!(allocated_bytes(&path) >= 24 * MIB);
        drop(medium);
        FileMedium::open(&path, THICK).unwrap();
    }
}

#[test]
fn a_thick_file_is_not_made_of_holes() {
    for mount in [Mount::ext4(32 * MIB), Mount::tmpfs("32m")] {
        let path = mount.path("lun");
        let refused = FileMedium::create(&path, 64 * MIB, THICK).unwrap_err();
        assert!(matches!(refused, OpenError::NoRoom { .. }), "{refused}");
        assert!(!path.exists());
        drop(FileMedium::create(&path, 4 * MIB, FileOptions::default()).unwrap());
        let refused = FileMedium::open(&path, THICK).unwrap_err();
        let message = refused.to_string();
        assert!(
            matches!(refused, OpenError::Sparse { allocated_bytes: 0, .. }),
            "{message}"
        );
        assert!(message.contains("fallocate --length 4194304"), "{message}");
        command("fallocate", &["--length", "4194304", path.to_str().unwrap()]);
        let medium = FileMedium::open(&path, THICK).unwrap();
        assert_eq!(read(&medium, 0, 4096), [0; 4096]);
    }
}

#[test]
fn what_initiators_see_of_a_thick_lun() {
    let mount = Mount::ext4(64 * MIB);
    let file = FileMedium::create(&mount.path("lun"), 16 * MIB, THICK).unwrap();
    let memory = MemoryOptions {
        allocation: Allocation::Thick,
        ..MemoryOptions::default()
    };
    let memory = MemoryMedium::with_options(16 * MIB, memory).unwrap();
    for medium in [Arc::new(file) as Arc<dyn Medium>, Arc::new(memory)] {
        let disk = nexus(medium);
        assert_eq!(
            good(&disk, &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], &[])[14],
            0,
            "LBPME"
        );
        assert_eq!(good(&disk, &[0x12, 1, 0xB2, 0, 255, 0], &[])[4..], [0; 4]);
        assert_eq!(
            good(&disk, &[0x12, 1, 0xB0, 0, 255, 0], &[])[20..32],
            [0; 12],
            "no UNMAP"
        );
        let list = unmap_list(&[(0, 8)]);
        assert_eq!(refused(&disk, &unmap_cdb(&list), &list), (5, 0x20, 0));
        good(&disk, &write_10(8, 8), &[9; 4096]);
        assert_eq!(
            refused(&disk, &scsi_support::cdb_10(0x41, 0x08, 8, 8), &[0; 512]),
            (5, 0x24, 0)
        );
        good(&disk, &scsi_support::cdb_10(0x41, 0x00, 8, 4), &[0; 512]);
        good(&disk, &scsi_support::cdb_10(0x41, 0x00, 12, 2), &[3; 512]);
        assert_eq!(
            good(&disk, &read_10(8, 8), &[]),
            [vec![0; 2048], vec![3; 1024], vec![9; 1024]].concat()
        );
    }
}

#[test]
fn block_sizes_are_told_as_they_are() {
    let options = |block_bytes, physical_block_bytes| FileOptions {
        block_bytes,
        physical_block_bytes,
        ..FileOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun");
    for (block, physical, exponent, granularity) in [
        (512, None, 3, 8),
        (512, Some(512), 0, 1),
        (512, Some(4096), 3, 8),
        (4096, None, 0, 1),
        (4096, Some(4096), 0, 1),
    ] {
        let file = FileMedium::create(&path, MIB, options(block, physical)).unwrap();
        std::fs::remove_file(&path).unwrap();
        let memory = MemoryOptions {
            block_bytes: block,
            physical_block_bytes: physical,
            ..MemoryOptions::default()
        };
        let memory = MemoryMedium::with_options(MIB, memory).unwrap();
        for medium in [Arc::new(file) as Arc<dyn Medium>, Arc::new(memory)] {
            let disk = nexus(medium);
            let capacity = good(&disk, &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], &[]);
            assert_eq!(capacity[..8], (MIB / u64::from(block) - 1).to_be_bytes());
            assert_eq!(capacity[8..12], block.to_be_bytes());
            assert_eq!((capacity[13], capacity[14] & 0x3F, capacity[15]), (exponent, 0, 0));
            let limits = good(&disk, &[0x12, 1, 0xB0, 0, 255, 0], &[]);
            assert_eq!(limits[6..8], [0, granularity], "OPTIMAL TRANSFER LENGTH GRANULARITY");
        }
    }
    for (block, physical) in [(4096, 512), (512, 1024), (512, 8192)] {
        let refused = FileMedium::create(&path, MIB, options(block, Some(physical))).unwrap_err();
        assert!(matches!(refused, OpenError::PhysicalBlockSize { .. }), "{refused}");
        let memory = MemoryOptions {
            block_bytes: block,
            physical_block_bytes: Some(physical),
            ..MemoryOptions::default()
        };
        MemoryMedium::with_options(MIB, memory).unwrap_err();
    }
    assert!(!path.exists());
}

#[test]
fn what_is_served_for_reading_need_not_be_writable() {
    let reading = FileOptions {
        read_only: true,
        ..FileOptions::default()
    };
    let mount = Mount::ext4(16 * MIB);
    let path = mount.path("lun");
    let medium = FileMedium::create(&path, MIB, FileOptions::default()).unwrap();
    write(&medium, 512, &[8; 512]).unwrap();
    drop(medium);
    mount.remount_read_only();
    FileMedium::open(&path, FileOptions::default()).unwrap_err();
    let medium = Arc::new(FileMedium::open(&path, reading).unwrap());
    assert!(matches!(FileMedium::open(&path, reading), Err(OpenError::InUse { .. })));
    assert!(medium.properties().read_only);
    medium.flush(Wait::Allowed).unwrap();
    write(&*medium, 0, &[1; 512]).unwrap_err();
    medium.resize(2 * MIB).unwrap_err();

    let image = mount.0.path().join("disk");
    std::fs::write(&image, vec![8; 1 << 20]).unwrap();
    let device = Loop::new(&image, &["--read-only"]);
    let error = BlockMedium::open(&device.0, FileOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::WriteProtected { .. }), "{error}");
    let block = Arc::new(BlockMedium::open(&device.0, reading).unwrap());
    write(&*block, 0, &[1; 512]).unwrap_err();

    for medium in [medium as Arc<dyn Medium>, block] {
        // The unit is write protected although nobody said so.
        let disk = nexus(medium);
        assert_eq!(good(&disk, &read_10(1, 1), &[]), [8; 512]);
        assert_eq!(refused(&disk, &write_10(1, 1), &[1; 512]), (7, 0x27, 0x00));
        assert_eq!(
            refused(&disk, &scsi_support::cdb_10(0x41, 0, 1, 1), &[0; 512]),
            (7, 0x27, 0x00)
        );
        assert_eq!(good(&disk, &[0x1A, 0x08, 0x3F, 0, 252, 0], &[])[2] & 0x80, 0x80, "WP");
        good(&disk, &scsi_support::cdb_10(0x35, 0, 0, 0), &[]);
    }
}

/// A thin LUN on a full file system: writes that need space fail, all else goes on, and once there is space again
/// so do they.
#[test]
fn running_out_of_space_is_survived() {
    for mount in [Mount::ext4(32 * MIB), Mount::tmpfs("8m")] {
        let file = FileMedium::create(&mount.path("lun"), 1 << 34, FileOptions::default()).unwrap();
        let file = Arc::new(file);
        let before = file.space().unwrap();
        assert!(
            before.used_bytes < MIB && before.available_bytes > 4 * MIB && before.total_bytes >= before.available_bytes
        );
        let disk = nexus(Arc::clone(&file) as Arc<dyn Medium>);
        good(&disk, &write_10(0, 2048), &vec![1; 1 << 20]);
        let space = file.space().unwrap();
        assert!(space.used_bytes >= MIB, "{space:?}");
        fill(&mount.path("others"));
        let mut flags = scsi_support::write_10(1 << 20, 2048);
        for fua in [0x00, 0x08] {
            flags[1] = fua;
            assert_eq!(refused(&disk, &flags, &vec![2; 1 << 20]), (7, 0x27, 0x07));
        }
        assert_eq!(
            refused(&disk, &scsi_support::cdb_10(0x41, 0, 1 << 21, 4096), &[2; 512]),
            (7, 0x27, 0x07)
        );
        // What is there can be read, written again, flushed and given back.
        assert_eq!(good(&disk, &read_10(2047, 1), &[]), [1; 512]);
        good(&disk, &write_10(8, 8), &[3; 4096]);
        good(&disk, &scsi_support::cdb_10(0x35, 0, 0, 0), &[]);
        std::fs::remove_file(mount.path("others")).unwrap();
        flags[1] = 0x08;
        good(&disk, &flags, &vec![2; 1 << 20]);
        good(&disk, &scsi_support::cdb_10(0x35, 0, 0, 0), &[]);
        assert_eq!(good(&disk, &read_10((1 << 20) + 2047, 1), &[]), [2; 512]);
        assert_eq!(
            good(&disk, &read_10(7, 10), &[]),
            [vec![1; 512], vec![3; 4096], vec![1; 512]].concat()
        );
        let list = unmap_list(&[(0, 1 << 22)]);
        good(&disk, &unmap_cdb(&list), &list);
        assert!(file.space().unwrap().used_bytes < MIB);
    }
}

#[test]
fn a_device_that_has_grown_can_be_served_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create_new(&path).unwrap().set_len(16 * MIB).unwrap();
    let device = Loop::new(&path, &[]);
    let medium = BlockMedium::open(&device.0, FileOptions::default()).unwrap();
    assert_eq!(medium.storage_bytes().unwrap(), 16 * MIB);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(24 * MIB + 512)
        .unwrap();
    command("losetup", &["--set-capacity", device.0.to_str().unwrap()]);
    assert_eq!(medium.size_bytes(), 16 * MIB, "until somebody says so");
    let storage_bytes = medium.storage_bytes().unwrap();
    assert_eq!(storage_bytes, 24 * MIB + 512);
    medium.resize(storage_bytes).unwrap();
    write(&medium, 24 * MIB, &[1; 512]).unwrap();
    assert!(medium.resize(storage_bytes + 512).is_err());
}

/// Whatever writes while a file is cut short, the file is as long as the LUN afterwards.
#[test]
fn nobody_writes_beyond_the_end_of_a_file_that_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun");
    let medium = FileMedium::create(&path, 4 * MIB, FileOptions::default()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    // Fails whenever the end is nearer.
                    let _ = write(&medium, 4 * MIB - 65536, &[7; 65536]);
                }
            });
        }
        for _ in 0..200 {
            medium.resize(MIB).unwrap();
            medium.resize(4 * MIB).unwrap();
        }
        medium.resize(MIB).unwrap();
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(
        (medium.size_bytes(), std::fs::metadata(&path).unwrap().len()),
        (MIB, MIB)
    );
}
