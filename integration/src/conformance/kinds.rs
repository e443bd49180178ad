//! The kinds of LUN that the suite is run over, and how: what a kind can show decides its block sizes.

/// A kind of LUN.
#[derive(Clone, Copy, Debug)]
pub struct LunKind {
    /// Its name: of its target, and of its list.
    pub name: &'static str,
    /// Its LUNs, from 0, as tables of the configuration file without their numbers. `DIR` stands for a folder.
    pub luns: &'static [&'static str],
    /// Whether two paths to it are given.
    pub multipath: bool,
    /// How the suite is run, in this order; what a later run says of a test counts.
    pub runs: &'static [Run],
}

/// One run of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The suite's own words for which tests.
    pub tests: &'static str,
    /// On which LUN.
    pub lun: u16,
    /// What it may do.
    pub may: May,
}

/// What a run of the suite may do to the LUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Read.
    Look,
    /// Write (`--dataloss`).
    Write,
    /// Write and sanitize (`--dataloss --allow-sanitize`).
    Sanitize,
}

/// Everything, and it may write.
const ALL: Run = Run {
    tests: "ALL",
    lun: 0,
    may: May::Write,
};

/// The five kinds.
///
/// - GetLBAStatus.UnmapSingle asks for block N+1 and expects the answer to start at the next physical block: that is
///   right only where a physical block is a logical one, or without UNMAP.
/// - The tests called UnmapUnaligned and InvalidDataOutSize want physical blocks that are larger, of a thin LUN.
/// - WriteSame10.UnmapUntilEnd unmaps blocks with another pattern than zeroes and expects zeroes, if those are promised
///   of unmapped blocks: such a pattern has to be written (SBC-4 5.43), so it can pass only without that promise.
/// - WriteSame16.Unmap writes 65536 blocks at once if there are so many: too much for one transfer of 4096-byte blocks.
/// - Sanitize.Reset wants OVERWRITE to last longer than four seconds: that LUN is slow.
pub const KINDS: [LunKind; 5] = [
    LunKind {
        name: "thick",
        luns: &["file = \"DIR/thick.img\"\nsize = \"256MiB\"\nprovisioning = \"thick\""],
        multipath: false,
        runs: &[ALL],
    },
    LunKind {
        name: "thin",
        luns: &["file = \"DIR/thin.img\"\nsize = \"192MiB\"\nblock_size_bytes = 4096\ncopy_offload = true"],
        multipath: false,
        runs: &[ALL],
    },
    LunKind {
        name: "removable",
        luns: &[
            "memory = \"192MiB\"\nblock_size_bytes = 4096\nremovable = true",
            "memory = \"192MiB\"\nblock_size_bytes = 4096\nremovable = true\nbytes_per_second_max = \"24MB\"",
        ],
        multipath: false,
        runs: &[
            ALL,
            Run {
                tests: "ALL.Sanitize",
                lun: 1,
                may: May::Sanitize,
            },
        ],
    },
    LunKind {
        name: "read-only",
        luns: &["file = \"DIR/read-only.img\"\nphysical_block_size_bytes = 512\nread_only = true"],
        multipath: false,
        // Most tests of a suite that may write expect to be able to. Those of reservations write nothing, but want the
        // permission; those of them that go on to write (Access...) are left out by the suite itself without it.
        runs: &[
            Run { may: May::Look, ..ALL },
            Run {
                tests: "ALL.ReadOnly,ALL.PrinReadKeys,ALL.ProutRegister,ALL.ProutReserve.Simple,ALL.ProutReserve.Ownership*",
                ..ALL
            },
        ],
    },
    LunKind {
        name: "multipath",
        luns: &[
            "file = \"DIR/multipath.img\"\nsize = \"256MiB\"\nunmap_command = false\nunmapped_reads = \"anything\"",
        ],
        multipath: true,
        runs: &[ALL],
    },
];
