//! The steps of our own launcher's stages that can fail.

use core::fmt;

use crate::deciders::bootstrap::text::PathText;
use crate::sys::types::{Capability, Errno, Fd, Resource};
use crate::words::error::{Code, Doing, Error, steps};

steps! {
    /// The step that failed. `Display` writes the text.
    StageStep<'m> {
        /// Closing the caller's descriptors, or marking them close-on-exec.
        Descriptors => Code::Descriptors, "failed to close the caller's descriptors";
        /// Passing on a descriptor that was named.
        PassDescriptor(fd: Fd) => Code::PassDescriptor, "failed to pass on descriptor {}", fd.0;
        /// Waiting for the go byte.
        AwaitGo => Code::AwaitGo, "failed to wait for the launcher's go byte";
        /// Writing the offsets of the new time namespace.
        TimeOffsets => Code::TimeOffsets, "failed to update /proc/self/timens_offsets";
        /// Entering the new time namespace, which is otherwise for children only.
        EnterTimeNamespace => Code::EnterTimeNamespace, "failed to enter the new time namespace";
        /// Setting the propagation of mount events.
        MountPropagation => Code::MountPropagation, "failed to make the mounts private";
        /// Mounting /proc.
        MountProc => Code::MountProc, "failed to mount /proc";
        /// Setting SIGKILL as the parent-death signal.
        KillChild => Code::KillChild, "failed to set the parent-death signal";
        /// Stage 2 clears the parent-death signal, before the exec of a command that may outlive the
        /// launcher.
        OutliveLauncher => Code::OutliveLauncher, "failed to clear the parent-death signal";
        /// Turning the loopback interface on.
        Loopback => Code::Loopback, "failed to turn the loopback interface on";
        /// Setting the host name.
        HostName => Code::HostName, "failed to set the host name";
        /// Opening or mounting the new root directory.
        NewRoot(path: &'m [u8]) => Code::NewRoot, "failed to prepare {} as the root directory", PathText(path);
        /// Copying the mount of a file or directory to bind.
        BindSource(path: &'m [u8]) => Code::BindSource, "failed to bind {}", PathText(path);
        /// Changing the attributes of a mount to bind.
        MountAttributes(path: &'m [u8]) => Code::MountAttributes, "failed to change the attributes of the mount on {}", PathText(path);
        /// Opening or creating a mount point.
        MountPoint(path: &'m [u8]) => Code::MountPoint, "failed to open or create the mount point {}", PathText(path);
        /// Mounting on a mount point.
        MountOn(path: &'m [u8]) => Code::MountOn, "failed to mount on {}", PathText(path);
        /// Creating a directory.
        MakeDirectory(path: &'m [u8]) => Code::MakeDirectory, "failed to create the directory {}", PathText(path);
        /// Creating a symbolic link.
        MakeLink(path: &'m [u8]) => Code::MakeLink, "failed to create the symbolic link {}", PathText(path);
        /// Entering the new root directory.
        EnterRoot => Code::EnterRoot, "failed to enter the new root directory";
        /// Detaching the old root directory.
        LeaveRoot => Code::LeaveRoot, "failed to detach the old root directory";
        /// Changing the working directory.
        WorkingDirectory(path: &'m [u8]) => Code::WorkingDirectory, "failed to change to the directory {}", PathText(path);
        /// Making standard input the controlling terminal.
        Terminal => Code::Terminal, "failed to make standard input the controlling terminal";
        /// Creating a session keyring.
        Keyring => Code::Keyring, "failed to create a session keyring";
        /// Moving the process to a cgroup.
        Cgroup(path: &'m [u8]) => Code::EnterCgroup, "failed to enter the cgroup {}", PathText(path);
        /// Creating the command's process as the child of a minimal init.
        StartInit => Code::StartInit, "failed to start the minimal init";
        /// Setting a limit of a resource.
        Limit(resource: Resource) => Code::Limit, "failed to set the limit {}", resource;
        /// Removing a capability from the bounding set.
        Bounding(capability: Capability) => Code::Capabilities, "failed to remove {} from the bounding set", capability;
        /// Setting the supplementary groups of the command.
        Groups => Code::Setgroups, "failed to set the supplementary groups";
        /// Setting the group id of the command.
        Group(gid: u32) => Code::Setgid, "failed to set the group id {}", gid;
        /// Setting the user id of the command.
        User(uid: u32) => Code::Setuid, "failed to set the user id {}", uid;
        /// Keeping the permitted capabilities at the change of the user id.
        KeepCapabilities => Code::Capabilities, "failed to keep capabilities at the change of the user id";
        /// Setting the capability sets.
        Capabilities => Code::Capabilities, "failed to set the capabilities";
        /// Adding a capability to the ambient set.
        Ambient(capability: Capability) => Code::Capabilities, "failed to add {} to the ambient set", capability;
        /// Ensuring that no exec gives new privileges.
        NoNewPrivs => Code::NoNewPrivs, "failed to set no_new_privs";
        /// Applying a Landlock rule set.
        Landlock => Code::Landlock, "failed to apply the Landlock rule set";
        /// Installing a seccomp filter.
        SeccompFilter => Code::SeccompFilter, "failed to install the seccomp filter";
        /// Running code of the caller.
        CodeOfCaller(number: u32) => Code::CodeOfCaller, "failed in pre_exec function {}", number;
        /// Executing the command.
        Exec(path: &'m [u8]) => Code::Exec, "failed to execute {}", PathText(path);
    }
}

impl<'m> StageStep<'m> {
    /// Returns the error of a system call in this step.
    #[must_use]
    pub const fn failed(self, errno: Errno) -> Error<'m> {
        Error::Os { doing: Doing::Launch(self), errno }
    }
}
