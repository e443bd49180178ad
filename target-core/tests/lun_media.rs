//! Media on real files and devices: locks, limits, holes, what may block, and what a failure leaves behind.
//!
//! Some of it takes root: small file systems are mounted and loop devices made, and put away again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use target_core::lun::{
    BlockMedium, Durability, Extent, FileMedium, FileOptions, Medium, MediumError, MemoryMedium, OpenError,
    Provisioning, Wait, WriteCache,
};

const MIB: u64 = 1 << 20;
static CALM: AtomicBool = AtomicBool::new(false);

fn options(block_bytes: u32) -> FileOptions {
    FileOptions {
        block_bytes,
        ..FileOptions::default()
    }
}

fn tmpfs_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs")
}

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

/// A small tmpfs of its own.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        command("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at]);
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A loop device over a file.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, sector_bytes: u32) -> Self {
        let sector = sector_bytes.to_string();
        let device = command(
            "losetup",
            &["--find", "--show", "--sector-size", &sector, file.to_str().unwrap()],
        );
        Self(device.into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn sparse(path: &Path, size_bytes: u64) {
    File::create_new(path).unwrap().set_len(size_bytes).unwrap();
}

fn read(medium: &dyn Medium, offset_bytes: u64, length_bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    medium
        .read(offset_bytes, length_bytes, &mut data, Wait::Allowed)
        .unwrap();
    data
}

fn write(medium: &dyn Medium, offset_bytes: u64, data: &[u8]) -> Result<(), MediumError> {
    medium.write(offset_bytes, data, Durability::Cached, Wait::Allowed)
}

#[test]
fn a_new_file_is_sparse_private_and_keeps_its_data() {
    for folder in [tempfile::tempdir().unwrap(), tmpfs_folder()] {
        use std::os::unix::fs::MetadataExt;
        let path = folder.path().join("lun");
        let medium = FileMedium::create(&path, 1 << 40, options(512)).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((medium.size_bytes(), metadata.len()), (1 << 40, 1 << 40));
        assert_eq!(metadata.blocks(), 0, "nothing is allocated");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(matches!(
            medium.properties().provisioning,
            Some(Provisioning {
                granularity_bytes: 4096,
                alignment_bytes: 0,
                reads_zeroes: true
            })
        ));
        write(&medium, (1 << 40) - 512, &[7; 512]).unwrap();
        medium.flush(Wait::Allowed).unwrap();
        drop(medium);
        let medium = FileMedium::open(&path, options(4096)).unwrap();
        assert_eq!(read(&medium, (1 << 40) - 1024, 1024), [[0; 512], [7; 512]].concat());
    }
}

#[test]
fn errors_say_what_is_wrong_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun");
    let create = |size_bytes, block_bytes| FileMedium::create(&path, size_bytes, options(block_bytes)).unwrap_err();
    let open = |path: &Path| FileMedium::open(path, options(512)).unwrap_err();
    assert!(matches!(create(MIB, 1024), OpenError::BlockSize { block_bytes: 1024 }));
    assert!(matches!(create(0, 512), OpenError::Size { size_bytes: 0, .. }));
    assert!(matches!(
        create(MIB + 512, 4096),
        OpenError::Size { block_bytes: 4096, .. }
    ));
    assert!(matches!(create(1 << 63, 512), OpenError::TooLarge { .. }));
    assert!(matches!(open(&path), OpenError::Missing { .. }));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("no/such/folder");
    assert!(matches!(
        FileMedium::create(&nowhere, MIB, options(512)).unwrap_err(),
        OpenError::Io { action: "create", .. }
    ));

    assert!(matches!(
        open(folder.path()),
        OpenError::WrongKind {
            expected: "regular file",
            ..
        }
    ));
    assert!(matches!(open(Path::new("/dev/null")), OpenError::WrongKind { .. }));
    std::fs::write(&path, [0; 700]).unwrap();
    assert!(matches!(open(&path), OpenError::Size { size_bytes: 700, .. }));
    assert!(matches!(create(MIB, 512), OpenError::Exists { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), [0; 700], "what was there still is");
    assert!(matches!(
        BlockMedium::open(&path, options(512)).unwrap_err(),
        OpenError::WrongKind {
            expected: "block device",
            ..
        }
    ));
    assert!(matches!(
        MemoryMedium::new(700, 512).unwrap_err(),
        OpenError::Size { .. }
    ));
}

#[test]
fn ext4_cannot_hold_twenty_tebibytes() {
    // On a file system of our own, so that it is ext4 wherever the test runs.
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    sparse(&image, 64 * MIB);
    command("mkfs.ext4", &["-q", image.to_str().unwrap()]);
    let at = folder.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    command("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
    let refused = FileMedium::create(&at.join("lun"), 20 << 40, options(512));
    let left: Vec<_> = std::fs::read_dir(&at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    command("umount", &[at.to_str().unwrap()]);
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("cannot hold a file of 21990232555520 bytes"),
        "{message}"
    );
    assert_eq!(left, ["lost+found"]);
}

#[test]
fn a_file_is_served_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun");
    let medium = FileMedium::create(&path, MIB, options(512)).unwrap();
    let message = FileMedium::open(&path, options(512)).unwrap_err().to_string();
    assert!(message.contains("is already open as a LUN elsewhere"), "{message}");
    // A link is the same file.
    let link = folder.path().join("link");
    std::fs::hard_link(&path, &link).unwrap();
    assert!(matches!(
        FileMedium::open(&link, options(512)).unwrap_err(),
        OpenError::InUse { .. }
    ));
    drop(medium);
    FileMedium::open(&link, options(512)).unwrap();
}

#[test]
fn holes_are_found_dug_and_filled() {
    for folder in [tempfile::tempdir().unwrap(), tmpfs_folder()] {
        let medium = FileMedium::create(&folder.path().join("lun"), MIB, options(512)).unwrap();
        let runs = || {
            let mut runs = Vec::new();
            let mut at_bytes = 0;
            while at_bytes < MIB {
                let Extent { length_bytes, mapped } = medium.allocation(at_bytes, Wait::Allowed).unwrap();
                runs.push((at_bytes / 4096, length_bytes / 4096, mapped));
                at_bytes += length_bytes;
            }
            assert_eq!(at_bytes, MIB);
            runs
        };
        assert_eq!(runs(), [(0, 256, false)]);
        write(&medium, 8 * 4096, &[1; 16 * 4096]).unwrap();
        assert_eq!(runs(), [(0, 8, false), (8, 16, true), (24, 232, false)]);
        medium.unmap(10 * 4096, 2 * 4096, Wait::Allowed, &CALM).unwrap();
        assert_eq!(
            runs(),
            [
                (0, 8, false),
                (8, 2, true),
                (10, 2, false),
                (12, 12, true),
                (24, 232, false)
            ]
        );
        assert_eq!(read(&medium, 10 * 4096 - 1, 2), [1, 0]);
        // Parts of a unit are zeroed and stay.
        medium.unmap(12 * 4096, 512, Wait::Allowed, &CALM).unwrap();
        assert_eq!(read(&medium, 12 * 4096 + 511, 2), [0, 1]);
        medium
            .write_zeroes(8 * 4096, 2 * 4096, true, Durability::Stable, Wait::Allowed, &CALM)
            .unwrap();
        assert_eq!(runs()[0], (0, 12, false));
        medium
            .write_zeroes(0, MIB, false, Durability::Cached, Wait::Allowed, &CALM)
            .unwrap();
        assert_eq!(read(&medium, 0, MIB as usize), vec![0; MIB as usize]);
        let raised = AtomicBool::new(true);
        for result in [
            medium.unmap(0, MIB, Wait::Allowed, &raised),
            medium.write_zeroes(0, MIB, false, Durability::Cached, Wait::Allowed, &raised),
        ] {
            assert!(matches!(result, Err(MediumError::Cancelled)));
        }
        assert!(medium.allocation(MIB, Wait::Allowed).is_err());
    }
}

#[test]
fn tmpfs_never_blocks() {
    let folder = tmpfs_folder();
    let medium = FileMedium::create(&folder.path().join("lun"), 64 * MIB, options(512)).unwrap();
    assert!(medium.never_blocks());
    let mut data = vec![9];
    medium.write(512, &[3; 1024], Durability::Stable, Wait::Never).unwrap();
    medium.read(512, 512, &mut data, Wait::Never).unwrap();
    assert_eq!(data, [&[9][..], &[3; 512]].concat(), "appended");
    medium.flush(Wait::Never).unwrap();
    medium.unmap(0, MIB, Wait::Never, &CALM).unwrap();
    medium.allocation(0, Wait::Never).unwrap();
    // But a long hole takes its time.
    assert!(matches!(
        medium.unmap(0, 64 * MIB, Wait::Never, &CALM),
        Err(MediumError::WouldBlock)
    ));
}

#[test]
fn a_disk_blocks_unless_it_is_cached() {
    // The folder for builds is on a disk; that it is not tmpfs is asked of the medium.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("lun");
    let medium = FileMedium::create(&path, 16 * MIB, options(512)).unwrap();
    assert!(!medium.never_blocks(), "this test needs its build folder on a disk");
    write(&medium, 0, &vec![5; 16 << 20]).unwrap();
    let mut data = Vec::new();
    medium.read(4096, 8192, &mut data, Wait::Never).unwrap();
    assert_eq!(data, [5; 8192], "what was just written is cached");
    assert!(matches!(
        medium.write(0, &[1; 512], Durability::Stable, Wait::Never),
        Err(MediumError::WouldBlock)
    ));
    assert!(matches!(medium.flush(Wait::Never), Err(MediumError::WouldBlock)));
    assert!(matches!(
        medium.unmap(0, 4096, Wait::Never, &CALM),
        Err(MediumError::WouldBlock)
    ));
    assert!(matches!(
        medium.allocation(0, Wait::Never),
        Err(MediumError::WouldBlock)
    ));

    // Dropped from the cache, the same read is left to a worker, and brings nothing with it.
    medium.flush(Wait::Allowed).unwrap();
    drop(medium);
    let file = File::open(&path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    drop(file);
    let medium = FileMedium::open(&path, options(512)).unwrap();
    let mut data = vec![1, 2];
    assert!(matches!(
        medium.read(8 << 20, 1 << 20, &mut data, Wait::Never),
        Err(MediumError::WouldBlock)
    ));
    assert_eq!(data, [1, 2]);
    medium.read(8 << 20, 512, &mut data, Wait::Allowed).unwrap();
    assert_eq!(data.len(), 514);
}

#[test]
fn reading_into_a_buffer_with_room_to_spare_takes_what_was_asked_for() {
    for folder in [tempfile::tempdir().unwrap(), tmpfs_folder()] {
        let medium = FileMedium::create(&folder.path().join("lun"), MIB, options(512)).unwrap();
        write(&medium, 0, &[8; 4096]).unwrap();
        for capacity in [0, 512, 513, 100_000] {
            let mut data = Vec::with_capacity(capacity);
            medium.read(0, 512, &mut data, Wait::Allowed).unwrap();
            assert_eq!(data, [8; 512], "{capacity}");
        }
    }
}

#[test]
fn a_file_cut_short_from_outside_is_an_error_and_no_hang() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lun");
    let medium = FileMedium::create(&path, MIB, options(512)).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096 + 100)
        .unwrap();
    let mut data = vec![1];
    assert!(matches!(
        medium.read(4096, 512, &mut data, Wait::Allowed),
        Err(MediumError::Io(_))
    ));
    assert!(matches!(
        medium.read(8192, 512, &mut data, Wait::Never),
        Err(MediumError::WouldBlock)
    ));
    assert_eq!(data, [1]);
}

#[test]
fn a_full_file_system_is_no_space() {
    let mount = Mount::new("1m");
    let medium = FileMedium::create(&mount.path("lun"), 64 * MIB, options(512)).unwrap();
    let full = write(&medium, 0, &vec![1; 2 << 20]).unwrap_err();
    assert!(matches!(full, MediumError::NoSpace), "{full}");
    assert!(matches!(
        medium.write(32 * MIB, &[1; 4096], Durability::Stable, Wait::Allowed),
        Err(MediumError::NoSpace)
    ));
    // Nothing acknowledged was lost, so flushing works, and after giving space back writing does too.
    medium.flush(Wait::Allowed).unwrap();
    medium.unmap(0, 64 * MIB, Wait::Allowed, &CALM).unwrap();
    write(&medium, 32 * MIB, &[1; 4096]).unwrap();
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    // A loop device takes writes into the page cache; what is behind it has no room for them.
    let mount = Mount::new("1m");
    let backing = mount.path("disk");
    sparse(&backing, 16 * MIB);
    let disk = Loop::new(&backing, 512);
    let medium = BlockMedium::open(&disk.0, options(512)).unwrap();
    write(&medium, 0, &vec![1; 4 << 20]).unwrap();
    medium.flush(Wait::Allowed).unwrap_err();
    // The kernel reports it once and would now claim success; the medium does not, whatever is tried.
    let message = medium.flush(Wait::Allowed).unwrap_err().to_string();
    assert!(message.contains("an earlier sync failed"), "{message}");
    medium
        .write(0, &[1; 512], Durability::Stable, Wait::Allowed)
        .unwrap_err();
    medium.flush(Wait::Allowed).unwrap_err();
    drop(medium);
    let medium = BlockMedium::open(&disk.0, options(512)).unwrap();
    medium.flush(Wait::Allowed).unwrap();
}

#[test]
fn write_through_reaches_the_disk_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    sparse(&path, 16 * MIB);
    let disk = Loop::new(&path, 512);
    let through = FileOptions {
        block_bytes: 512,
        write_cache: WriteCache::WriteThrough,
        ..FileOptions::default()
    };
    let medium = BlockMedium::open(&disk.0, through).unwrap();
    assert_eq!(medium.properties().write_cache, WriteCache::WriteThrough);
    // The backing file shows what has left the device's cache.
    write(&medium, 4096, &[6; 512]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[4096..4608], [6; 512]);
    let back = {
        drop(medium);
        BlockMedium::open(&disk.0, options(512)).unwrap()
    };
    write(&back, 8192, &[7; 512]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[8192..8704], [0; 512], "cached");
    back.write(12288, &[8; 512], Durability::Stable, Wait::Allowed).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[12288..12800], [8; 512]);
    back.flush(Wait::Allowed).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[8192..8704], [7; 512]);
}

#[test]
fn a_block_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    sparse(&path, 16 * MIB + 512);
    let disk = Loop::new(&path, 512);
    let medium = BlockMedium::open(&disk.0, options(4096)).unwrap();
    assert_eq!(medium.size_bytes(), 16 * MIB, "whole blocks only");
    assert_eq!(medium.properties().block_bytes, 4096);
    assert!(medium.properties().provisioning.is_some(), "loop devices discard");
    write(&medium, 0, &vec![4; 1 << 20]).unwrap();
    assert_eq!(read(&medium, 4096, 4096), [4; 4096]);
    medium.unmap(4096, 8192, Wait::Allowed, &CALM).unwrap();
    medium
        .write_zeroes(65536, 4096, false, Durability::Cached, Wait::Allowed, &CALM)
        .unwrap();
    assert_eq!(
        read(&medium, 0, 16384),
        [[4; 4096], [0; 4096], [0; 4096], [4; 4096]].concat()
    );
    assert_eq!(read(&medium, 65536, 4096), [0; 4096]);
    assert_eq!(
        medium.allocation(MIB, Wait::Never).unwrap(),
        Extent {
            length_bytes: 15 * MIB,
            mapped: true
        }
    );
    assert!(medium.resize(32 * MIB).is_err());
    medium.resize(8 * MIB).unwrap();
    assert_eq!(medium.size_bytes(), 8 * MIB);
    let busy = BlockMedium::open(&disk.0, options(512)).unwrap_err();
    assert!(matches!(busy, OpenError::Busy { .. }), "{busy}");
}

#[test]
fn a_mounted_device_and_one_with_large_sectors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    sparse(&path, 64 * MIB);
    let disk = Loop::new(&path, 4096);
    let refused = BlockMedium::open(&disk.0, options(512)).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::SectorSize {
                sector_bytes: 4096,
                block_bytes: 512,
                ..
            }
        ),
        "{refused}"
    );
    BlockMedium::open(&disk.0, options(4096)).unwrap();
    command("mkfs.ext4", &["-q", disk.0.to_str().unwrap()]);
    let at = folder.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    command("mount", &[disk.0.to_str().unwrap(), at.to_str().unwrap()]);
    let refused = BlockMedium::open(&disk.0, options(4096));
    command("umount", &[at.to_str().unwrap()]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("is in use: mounted"), "{message}");
}

#[test]
fn resizing() {
    let folder = tempfile::tempdir().unwrap();
    let file = FileMedium::create(&folder.path().join("lun"), MIB, options(512)).unwrap();
    let memory = MemoryMedium::with_limit(MIB, 512, 4 * MIB).unwrap();
    for medium in [&file as &dyn Medium, &memory] {
        write(medium, 0, &vec![1; 1 << 20]).unwrap();
        medium.resize(100 * 512).unwrap();
        assert_eq!(medium.size_bytes(), 100 * 512);
        medium.resize(2 * MIB).unwrap();
        let data = read(medium, 0, 2 << 20);
        assert!(data[..51200].iter().all(|&byte| byte == 1) && data[51200..].iter().all(|&byte| byte == 0));
        assert!(medium.resize(0).is_err() && medium.resize(700).is_err());
        assert_eq!(medium.size_bytes(), 2 * MIB);
    }
    assert_eq!(memory.allocated_bytes(), 65536);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let medium = MemoryMedium::with_limit(1 << 50, 4096, 2 * 65536).unwrap();
    write(&medium, 1 << 49, &[1; 4096]).unwrap();
    write(&medium, 0, &[1; 4096]).unwrap();
    assert!(matches!(write(&medium, 65536, &[1; 4096]), Err(MediumError::NoSpace)));
    assert_eq!(medium.allocated_bytes(), 131072);
    medium.unmap(1 << 49, 65536, Wait::Never, &CALM).unwrap();
    write(&medium, 65536, &[1; 4096]).unwrap();
    assert!(write(&medium, (1 << 50) - 4096, &[1; 8192]).is_err(), "beyond the end");
    assert!(medium.read(u64::MAX, 4096, &mut Vec::new(), Wait::Never).is_err());
}

#[test]
fn memory_takes_long_ranges_only_from_those_who_may_wait() {
    const SHORT: u64 = 16 * MIB;
    const LONG: u64 = SHORT + 4096;
    let medium = MemoryMedium::new(4 * SHORT, 4096).unwrap();
    let data = vec![1; LONG as usize];
    let write = |length_bytes: u64, wait| medium.write(0, &data[..length_bytes as usize], Durability::Stable, wait);
    let read = |length_bytes, wait| medium.read(0, length_bytes as usize, &mut Vec::new(), wait);
    let zero = |may_unmap| {
        let medium = &medium;
        move |length_bytes, wait| medium.write_zeroes(0, length_bytes, may_unmap, Durability::Stable, wait, &CALM)
    };
    let unmap = |length_bytes, wait| medium.unmap(0, length_bytes, wait, &CALM);
    let calls: [&dyn Fn(u64, Wait) -> Result<(), MediumError>; 5] = [&write, &read, &zero(false), &zero(true), &unmap];
    for (at, call) in calls.iter().enumerate() {
        let before = medium.allocated_bytes();
        let refused = call(LONG, Wait::Never);
        assert!(matches!(refused, Err(MediumError::WouldBlock)), "{at}: {refused:?}");
        assert_eq!(medium.allocated_bytes(), before, "{at}: nothing was changed");
        call(SHORT, Wait::Never).unwrap();
        call(LONG, Wait::Allowed).unwrap();
    }
}
