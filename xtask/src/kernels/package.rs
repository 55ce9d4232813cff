//! Debian's kernels: found, downloaded, unpacked beside what cargo builds, never installed.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::quiet;
use crate::process;

/// Where kernels look for their modules.
const MODULES: &str = "/lib/modules";

/// A kernel that can be booted. While it lives its modules can be found under [`MODULES`].
pub(super) struct Kernel {
    release: String,
    image: PathBuf,
    linked: Option<PathBuf>,
}

impl Kernel {
    /// The newest kernel of a series.
    ///
    /// # Errors
    /// Debian's lists have none, or it cannot be downloaded or unpacked.
    pub(super) fn fetch(series: &str, directory: &Path) -> Result<Self> {
        let package = newest(series)?;
        let root = directory.join(&package);
        if !root.join("boot").is_dir() {
            println!("downloading {package}");
            let downloads = directory.join("downloads");
            fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
            quiet(Command::new("apt-get").args(["download", &package]).current_dir(&downloads))?;
            let archive = only_file(&downloads, &format!("{package}_"))?;
            let unpacking = directory.join(format!("{package}.unpacking"));
            quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacking))?;
            let release = only_file(&unpacking.join("lib/modules"), "")?;
            let release = release.file_name().context("no release")?.to_owned();
            quiet(Command::new("depmod").arg("-b").arg(&unpacking).arg(&release))?;
            fs::rename(&unpacking, &root).with_context(|| format!("keep {}", root.display()))?;
            fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        }
        let modules = only_file(&root.join("lib/modules"), "")?;
        let release = modules.file_name().context("no release")?.to_string_lossy().into_owned();
        let link = Path::new(MODULES).join(&release);
        let linked = if link.exists() {
            // This machine has that kernel itself.
            None
        } else {
            fs::create_dir_all(MODULES).with_context(|| format!("make {MODULES}"))?;
            let made = symlink(&modules, &link).or_else(|error| {
                // Left by a run that was killed, and leading nowhere now.
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error);
                }
                fs::remove_file(&link)?;
                symlink(&modules, &link)
            });
            made.with_context(|| format!("link {}", link.display()))?;
            Some(link)
        };
        Ok(Self { image: root.join(format!("boot/vmlinuz-{release}")), release, linked })
    }

    /// As `uname -r` has it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// What is booted.
    pub(super) fn image(&self) -> &Path {
        &self.image
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(link) = &self.linked
            && let Err(error) = fs::remove_file(link)
        {
            eprintln!("warning: remove {}: {error}", link.display());
        }
        // It stays if this machine has kernels of its own.
        drop(fs::remove_dir(MODULES));
    }
}

/// The package of a series' newest kernel: the plain one, not those for clouds or real time.
fn newest(series: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}\\..*-amd64-unsigned$", series.replace('.', "\\."));
    let found = process::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let packages = found.lines().filter_map(|line| line.split_whitespace().next());
    newest_of(packages)
        .with_context(|| format!("the package lists have no linux-image-{series}.*-amd64-unsigned"))
}

fn newest_of<'a>(packages: impl Iterator<Item = &'a str>) -> Option<String> {
    let plain = packages.filter(|package| !package.contains("-cloud-") && !package.contains("-rt-"));
    plain.max_by_key(|package| numbers(package)).map(str::to_owned)
}

/// The numbers in a name, to be compared one by one.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The one file or directory there whose name begins so.
fn only_file(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("look into {}", directory.display()))?;
    let mut names = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    names.next().with_context(|| format!("{} has nothing that begins with \"{prefix}\"", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_is_taken() {
        let packages = [
            "linux-image-6.1.0-9-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-amd64-unsigned",
            "linux-image-6.1.0-60-rt-amd64-unsigned",
        ];
        assert_eq!(newest_of(packages.into_iter()).as_deref(), Some("linux-image-6.1.0-50-amd64-unsigned"));
        assert_eq!(newest_of([].into_iter()), None);
    }
}
