//! Runs a command as a container runtime's default seccomp profile confines it, on a kernel that knows no system call
//! younger than Linux 5.10.
//!
//! `warren-confined [--pod FOLDER [--volume FROM AT]…] COMMAND …`. What the profiles of Docker and containerd refuse to a container with CAP_NET_ADMIN is
//! refused with EPERM; what 5.10 does not know, and `clone3`, fail with ENOSYS, as there.
//!
//! With `--pod`, it also has what the DaemonSet's container has, and no more: all files are read-only but those in FOLDER,
//! /proc/sys among them; of root's capabilities it keeps CAP_NET_ADMIN, and can never gain another. Its /var is its own: nothing is
//! there but volumes, each a folder at a path below it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Refused whatever their arguments are.
const REFUSED: [libc::c_long; 48] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];
/// Of `clone`: the flags that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;
/// System calls of the versions after 5.10, which ends with number 440.
const YOUNGER: std::ops::RangeInclusive<i64> = 441..=480;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn main() {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "--pod") {
        let folder = words.drain(..2).next_back().expect("a folder");
        let mut volumes = Vec::new();
        while words.first().is_some_and(|word| word == "--volume") {
            let at = words.drain(..3).skip(1).collect::<Vec<_>>();
            volumes.push(<[OsString; 2]>::try_from(at).expect("two folders"));
        }
        contain(&folder, &volumes);
        words.splice(..0, CAPABILITIES.map(OsString::from));
    }
    let command = words.first().expect("usage: warren-confined [--pod FOLDER [--volume FROM AT]…] COMMAND …").clone();
    apply(unknown(), libc::ENOSYS);
    apply(refused(), libc::EPERM);
    let error = Command::new(&command).args(&words[1..]).exec();
    panic!("cannot run {}: {error}", command.display());
}

/// What runs the command with the one capability.
const CAPABILITIES: [&str; 5] =
    ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs", "--"];

/// Nothing can be written from here on but what is in the folder, and devices.
fn contain(folder: &OsStr, volumes: &[[OsString; 2]]) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("root may");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root may");
    bind(folder, folder).expect("the folder is there");
    mount(Some("tmpfs"), "/var", Some("tmpfs"), MsFlags::empty(), none).expect("root may");
    for [from, at] in volumes {
        std::fs::create_dir_all(at).expect("it is below /var");
        bind(from, at).and_then(|()| lock(at)).expect("the volume is there");
    }
    let sysctls = OsStr::new("/proc/sys");
    bind(sysctls, sysctls).expect("it is there");
    ["/proc/sys", "/var", "/"].iter().try_for_each(|path| lock(OsStr::new(path))).expect("mounts can be locked");
}

fn bind(from: &OsStr, at: &OsStr) -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(Some(from), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
}

fn lock(at: &OsStr) -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, at, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
}

fn refused() -> Rules {
    let mut rules: Rules = REFUSED.into_iter().map(|number| (number, Vec::new())).collect();
    let flags = (0..64).map(|bit| 1u64 << bit).filter(|flag| NAMESPACES & flag != 0);
    let rule = |flag| {
        let has = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag);
        SeccompRule::new(vec![has.expect("an argument")]).expect("a condition")
    };
    rules.insert(libc::SYS_clone, flags.map(rule).collect());
    rules
}

fn unknown() -> Rules {
    YOUNGER.chain([libc::SYS_clone3]).map(|number| (number, Vec::new())).collect()
}

fn apply(rules: Rules, errno: i32) {
    let arch = std::env::consts::ARCH.try_into().expect("a processor that the crate knows");
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a filter that the kernel can run");
    apply_filter(&program).expect("the kernel takes filters");
}
