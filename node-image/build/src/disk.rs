//! The root disk of a virtual machine: one ext4 file system, no partition table, filled from the
//! tree without being mounted.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

use crate::command::run;
use crate::elf;

/// Fixed, so that equal trees give equal disks. Workers mount by device, never by UUID.
const UUID: &str = "6d617269-6e61-4e6f-8465-726f6f740001";

/// The smallest disk that a worker may have; node-init grows the file system to the real size.
const SIZE_MIB: u64 = 1536;

/// Writes the file system of `tree` to `out`, as a sparse file.
///
/// # Errors
/// The tree does not fit or cannot be read.
pub fn write(rootfs: &Path, tree: &Path, out: &Path) -> anyhow::Result<()> {
    File::create(out)
        .and_then(|file| file.set_len(SIZE_MIB << 20))
        .with_context(|| format!("creating {}", out.display()))?;
    // The image's own mke2fs: it honours SOURCE_DATE_EPOCH, the host's may be too old to.
    let mut mke2fs = elf::program(rootfs, "usr/sbin/mke2fs");
    let time = crate::SOURCE_DATE_EPOCH.to_string();
    mke2fs
        .env("SOURCE_DATE_EPOCH", &time)
        .env("E2FSPROGS_FAKE_TIME", &time)
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-I", "256", "-i", "16384"])
        .args(["-L", "marina", "-U", UUID])
        // A small journal: the disk lives as long as its worker. Room in the descriptor table to
        // grow to 64 TiB while mounted, and no background initialisation after the first mount.
        .args(["-J", "size=16"])
        .args(["-O", "extents,has_journal,dir_index,filetype,sparse_super,large_file,huge_file"])
        .args(["-O", "64bit,flex_bg,metadata_csum,extra_isize,uninit_bg,meta_bg,^resize_inode"])
        .arg("-E")
        .arg(format!("hash_seed={UUID},root_owner=0:0,lazy_itable_init=1,nodiscard"))
        .arg("-d")
        .arg(tree)
        .arg(out);
    run(&mut mke2fs).context("filling the disk")?;
    Ok(())
}
