//! What a build of the program says of itself, so that it can be told without running it: a
//! controller has to know of a program for another kind of machine whether the cluster could run
//! it.
//!
//! One line of text lies in every executable, and the program itself reads its version from there.
//! It is looked for as plain bytes, so no format of executables has to be understood. The cost: one
//! reading of the file from its start to its end.

use std::hint::black_box;
use std::sync::LazyLock;

/// The line. The cluster versions are [`CLUSTER_VERSIONS`], which a test compares.
static MARK: &str =
    concat!("paxos-build/1 version=", env!("CARGO_PKG_VERSION"), " cluster-versions=1-1;");

/// How it begins.
const BEGINNING: &str = "paxos-build/1 version=";

/// The line is shorter.
const MARK_BYTES_MAX: usize = 128;

/// The oldest and the newest cluster version that this source can run. The cluster version stands
/// in the log, and what an older program would not understand is written only once all members run
/// programs that do, and somebody raised it.
pub const CLUSTER_VERSIONS: (u16, u16) = (1, 1);

/// What a build says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Such as `0.1.0`.
    pub version: String,
    /// The oldest and the newest cluster version that it can run.
    pub cluster_versions: (u16, u16),
}

static OWN: LazyLock<Build> = LazyLock::new(|| {
    // Read where it lies, and not as the compiler remembers it.
    Build::read(black_box(MARK).as_bytes()).expect("the line is one of ours")
});

impl Build {
    /// This program's.
    pub fn own() -> &'static Build {
        &OWN
    }

    /// Finds what an executable says of itself; none if it is no program of ours, or says two
    /// different things.
    pub fn of(executable: &[u8]) -> Option<Build> {
        let mut found = None;
        let mut rest = executable;
        while let Some(place) = memchr::memmem::find(rest, BEGINNING.as_bytes()) {
            let build = Build::read(&rest[place..]);
            rest = &rest[place + BEGINNING.len()..];
            match (&found, build) {
                (None, Some(build)) => found = Some(build),
                (Some(other), Some(build)) if *other != build => return None,
                _ => {}
            }
        }
        found
    }

    /// Reads a line at the start of these bytes.
    fn read(bytes: &[u8]) -> Option<Build> {
        let bytes = bytes.get(..bytes.len().min(MARK_BYTES_MAX))?;
        let end = bytes.iter().position(|byte| *byte == b';')?;
        let line = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix(BEGINNING)?;
        let (version, versions) = line.split_once(" cluster-versions=")?;
        let (oldest, newest) = versions.split_once('-')?;
        let cluster_versions = (oldest.parse().ok()?, newest.parse().ok()?);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        let sound = !version.is_empty()
            && version.chars().all(plain)
            && cluster_versions.0 <= cluster_versions.1;
        sound.then(|| Build { version: version.to_owned(), cluster_versions })
    }

    /// Whether it can run in a cluster of this version.
    pub fn runs(&self, cluster_version: u16) -> bool {
        (self.cluster_versions.0..=self.cluster_versions.1).contains(&cluster_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_build_says_what_it_is() {
        assert_eq!(Build::own().version, env!("CARGO_PKG_VERSION"));
        assert_eq!(Build::own().cluster_versions, CLUSTER_VERSIONS);
        let executable = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(Build::of(&executable).as_ref(), Some(Build::own()));
    }

    #[test]
    fn what_is_no_program_of_ours_is_told() {
        let mark = |version: &str, versions: &str| {
            // Not as one text, or this test's own program would hold it.
            format!("{BEGINNING}{version} cluster-versions={versions};")
        };
        let both = [mark("0.2.0", "1-2"), "\0".to_owned(), mark("0.2.0", "1-2")].concat();
        let build = Build { version: "0.2.0".to_owned(), cluster_versions: (1, 2) };
        assert_eq!(Build::of(both.as_bytes()), Some(build));
        let two = [mark("0.2.0", "1-2"), mark("0.3.0", "1-2")].concat();
        let cut = mark("0.2.0", "1-2").replace(';', "");
        for other in [
            "",
            "\u{7f}ELF",
            BEGINNING,
            &two,
            &cut,
            &mark("", "1-2"),
            &mark("0.2.0", "2-1"),
            &mark("0.2.0", "1"),
            &mark("../../x", "1-2"),
        ] {
            assert_eq!(Build::of(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn a_cluster_version_is_run_or_not() {
        let build = Build { version: "0.2.0".to_owned(), cluster_versions: (2, 3) };
        let runs: Vec<u16> = (0..6).filter(|version| build.runs(*version)).collect();
        assert_eq!(runs, [2, 3]);
    }
}
