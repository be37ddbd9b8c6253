// The private mount namespace of `run`, as root or not.
#pragma once

namespace loopback {

/// Enters a mount namespace of our own, in which mounts of the host still arrive and ours stay
/// inside. Who may not is given a user namespace first, in which he keeps his own ids. The process
/// must have one thread. Throws std::runtime_error with one sentence that says what is missing.
void enter_private_namespace();

/// Lets a program that we exec mount and look into its clients, though it is not root: in a user
/// namespace of our own its first exec would lose both. Without effect where we are root.
void keep_capabilities_over_exec();

}  // namespace loopback
