//! Files of a guest: made, filled, probed and removed on the right host, and no other file ever.

use std::fs;
use std::path::{Path, PathBuf};

use drover_common::ids::Attempt;
use drover_common::rpc::latest::{
    AboutGuest, Authority, Below, CleanUp, DiskSource, FileFacts, GuestDisk, Image, ImagePiece, MigrateDisk, PieceOfImage, Sharing,
    StorageProbe, ToCompute, WithData, WriteImage,
};
use drover_compute::driver::DriverError;

use super::clean_up::fault;
use super::fake::Stage;

const BY_MIGRATION: Authority = Authority::Migration { attempt: Attempt(2) };

/// A raw disk that libvirt copies.
pub(crate) fn copied(target: &str, path: &str) -> MigrateDisk {
    let disk = GuestDisk {
        target: target.to_owned(),
        source: DiskSource::File { path: path.to_owned() },
        read_only: false,
        shareable: false,
        format: "raw".to_owned(),
        capacity_bytes: 4096,
        allocation_bytes: 0,
        backing_file: None,
        resolves_to: None,
        chain: Vec::new(),
        not_copyable: None,
        file: None,
    };
    MigrateDisk { disk, sharing: Sharing::NotShared, copied: true, carried: false, below: None, why: String::new() }
}

/// A config drive of this length.
fn carried(target: &str, path: &Path, bytes: u64) -> MigrateDisk {
    let mut moved = copied(target, path.to_str().unwrap());
    (moved.copied, moved.carried, moved.disk.read_only) = (false, true, true);
    moved.disk.file = Some(FileFacts { bytes, allocated_bytes: bytes, inode: 1, made_ns: None });
    moved
}

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(stage: &Stage, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drover-{name}-{}", stage.of.server));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn cdrom(path: &Path) -> String {
    let path = path.display();
    format!("<disk type='file' device='cdrom'><source file='{path}'/><target dev='sda'/><readonly/></disk>")
}

/// A destination without the guest.
fn destination() -> Stage {
    let stage = Stage::new(|_, _, _| {});
    stage.driver.state().domain = None;
    stage
}

fn clean_up(stage: &Stage, order: &WithData, probes: Option<Vec<StorageProbe>>) -> CleanUp {
    CleanUp { data: order.data.clone(), probes, ..stage.clean_up(BY_MIGRATION) }
}

#[tokio::test]
async fn a_config_drive_is_carried_piece_by_piece_and_gone_after_a_roll_back() {
    let (source, destination) = (Stage::new(|_, _, _| {}), destination());
    let (here, there) = (Directory::new(&source, "source"), Directory::new(&destination, "destination"));
    let mut content = vec![0_u8; 5 << 20];
    content[10..20].fill(7);
    content[4 << 20..].fill(8);
    fs::write(here.file("disk.config"), &content).unwrap();
    source.driver.state().devices = cdrom(&here.file("disk.config"));
    let mut order = destination.with_data();
    order.data.disks =
        vec![carried("sda", &there.file("disk.config"), content.len() as u64), copied("vda", there.file("disk").to_str().unwrap())];
    destination.call::<()>(ToCompute::PreLiveMigration(order.clone())).await.unwrap();
    let mut next = Some(0);
    while let Some(offset) = next {
        let read = ToCompute::ReadImage(PieceOfImage { of: source.of, target: "sda".to_owned(), offset });
        let piece: ImagePiece = source.call(read).await.unwrap();
        next = piece.next;
        let write = WriteImage { with: order.clone(), target: "sda".to_owned(), piece };
        destination.call::<()>(ToCompute::WriteImage(write)).await.unwrap();
    }
    assert!(fs::read(there.file("disk.config")).unwrap() == content);
    assert_eq!(there.names(), ["disk", "disk.config"]);
    let undone = ToCompute::RollbackLiveMigrationAtDestination(clean_up(&destination, &order, None));
    destination.call::<()>(undone).await.unwrap();
    assert_eq!(there.names(), Vec::<String>::new());
    let piece = ImagePiece { extents: Vec::new(), next: None };
    let late = ToCompute::WriteImage(WriteImage { with: order, target: "sda".to_owned(), piece });
    let why = fault(&destination, late).await;
    assert!(why.message.contains("was rolled back on h1"), "{why}");
}

#[tokio::test]
async fn only_read_only_disks_are_given_out_and_only_carried_files_are_written() {
    let source = Stage::new(|_, _, _| {});
    let here = Directory::new(&source, "writable");
    fs::write(here.file("disk"), "secret").unwrap();
    source.driver.state().devices =
        format!("<disk type='file'><source file='{}'/><target dev='vda'/></disk>", here.file("disk").display());
    for target in ["vda", "sda"] {
        let read = ToCompute::ReadImage(PieceOfImage { of: source.of, target: target.to_owned(), offset: 0 });
        let why = fault(&source, read).await;
        assert!(why.message.contains(&format!("g1 on h1 has no read-only file disk {target}")), "{why}");
    }
    let mut order = source.with_data();
    order.data.disks = vec![copied("vda", here.file("disk").to_str().unwrap()), carried("sda", &here.file("disk"), 6)];
    for (target, part) in [("vda", "none that is carried over"), ("sda", "is not this attempt's")] {
        let piece = ImagePiece { extents: Vec::new(), next: None };
        let write = WriteImage { with: order.clone(), target: target.to_owned(), piece };
        let why = fault(&source, ToCompute::WriteImage(write)).await;
        assert!(why.message.contains(part), "{why}");
    }
    assert_eq!(fs::read(here.file("disk")).unwrap(), b"secret");
}

#[tokio::test]
async fn the_source_removes_its_files_only_if_nothing_of_the_destinations_is_seen_beside_them() {
    let source = destination(); // The guest has left.
    let here = Directory::new(&source, "left");
    let mut order = source.with_data();
    order.data.disks = vec![copied("vda", here.file("disk").to_str().unwrap()), carried("sda", &here.file("disk.config"), 1)];
    let directory = here.0.to_str().unwrap().to_owned();
    let probe = |written: Result<&str, &str>| StorageProbe {
        directory: directory.clone(),
        written: written.map(str::to_owned).map_err(str::to_owned),
    };
    let restore = || {
        for name in ["disk", "disk.config"] {
            fs::write(here.file(name), "x").unwrap();
        }
    };
    restore();
    order.data.disks[1].disk.file = None;
    // The same agent plays the destination: what it writes is to be seen by the source.
    // What lies below a disk stays where it is, and may well be shared.
    let base = DiskSource::File { path: std::env::temp_dir().join("base").to_str().unwrap().to_owned() };
    order.data.disks[0].disk.chain = vec![Image { source: base, format: "raw".to_owned(), resolves_to: None, file: None }];
    let seen: Vec<StorageProbe> = source.call(ToCompute::ProbeStorage(order.clone())).await.unwrap();
    assert_eq!((seen.len(), here.names().len()), (1, 3));
    let shared = fault(&source, ToCompute::PostLiveMigration(clean_up(&source, &order, Some(seen)))).await;
    assert!(shared.message.contains("what h2 writes there is seen here, so both hosts share them"), "{shared}");
    source.cast(ToCompute::ForgetProbes(AboutGuest { migration: source.of.migration, server: source.of.server })).await;
    while here.names().len() > 2 {
        tokio::task::yield_now().await;
    }
    for (probes, part) in
        [(vec![probe(Err("EROFS"))], "it cannot be told whether h2 shares them"), (vec![], "h2 has written nothing there")]
    {
        let why = fault(&source, ToCompute::PostLiveMigration(clean_up(&source, &order, Some(probes)))).await;
        assert!(why.message.contains(part), "{why}");
        assert_eq!(here.names(), ["disk", "disk.config"]);
    }
    let elsewhere = probe(Ok(&format!(".drover-probe-h2-{}", source.of.server)));
    source.call::<()>(ToCompute::PostLiveMigration(clean_up(&source, &order, Some(vec![elsewhere])))).await.unwrap();
    assert_eq!(here.names(), Vec::<String>::new());
    restore();
    source.call::<()>(ToCompute::PostLiveMigration(clean_up(&source, &order, None))).await.unwrap();
    assert_eq!(here.names(), Vec::<String>::new(), "a conductor before 1.3 does not ask");
}

#[tokio::test]
async fn a_disk_that_is_flattened_is_copied_whole_and_stands_alone_in_the_xml() {
    let mut stage = Stage::new(|_, _, _| {});
    let disk = "<disk type='file'><source file='/d/disk'/><backingStore type='file'><format type='raw'/><source file='/base/x'/>\
                <backingStore/></backingStore><target dev='vda'/></disk>";
    stage.driver.state().devices = disk.to_owned();
    let image =
        Image { source: DiskSource::File { path: "/base/x".to_owned() }, format: "raw".to_owned(), resolves_to: None, file: None };
    for (attempt, below, flags) in [(1, Below::Kept, 155), (2, Below::Flattened, 91)] {
        let mut order = stage.with_data();
        let mut moved = copied("vda", "/d/disk");
        (moved.disk.format, moved.disk.chain, moved.below) = ("qcow2".to_owned(), vec![image.clone()], Some(below));
        (order.data.disks, order.data.block_migration, order.of.attempt) = (vec![moved], true, Attempt(attempt));
        stage.cast(ToCompute::LiveMigration(order)).await;
        let calls = usize::try_from(attempt).unwrap();
        stage.until(|state| state.calls.len() == calls).await;
        {
            let state = stage.driver.state();
            let call = state.calls.last().unwrap();
            assert_eq!((call.flags, call.migrate_disks.as_slice()), (flags, ["vda".to_owned()].as_slice()));
            assert_eq!(call.destination_xml.contains("/base/x"), below == Below::Kept, "{}", call.destination_xml);
        }
        stage.driver.return_from_call(Err(DriverError::other("enough")));
        stage.report().await;
    }
}
