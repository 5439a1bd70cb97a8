import Foundation

/// What only root may do, or who has a user namespace to be root in. Tests that need it are left out elsewhere, by a trait
/// that says why; `make test` lists them at its end.
public enum Privileges {
    /// Whether this process may be another user for a while, and give files to others: root, with other users' numbers mapped.
    public static let canBecomeOthers = geteuid() == 0 && maps(65_534)

    /// Whether this process may make network namespaces, or a child of its own in a user namespace may: not every kernel, and
    /// not every container, lets an ordinary user.
    /// - Throws: ``MissingTool``.
    public static func canMakeNetworks() throws -> Bool {
        if geteuid() == 0 { return true }
        return try CommandRunner.runBlocking("unshare", namespaces + ["true"]).succeeded
    }

    /// `unshare`'s options for a child that is root of networks and mounts of its own, and nobody outside.
    static let namespaces = ["--user", "--map-root-user", "--net", "--mount"]

    /// Runs one test of this program again, as root of namespaces of its own, and fails where it did not run or not pass.
    /// - Parameter test: its name, as it stands after `func`.
    /// - Returns: what it printed.
    public static func runAgainInNamespaces(
        _ test: String, of suite: String, in directory: TemporaryDirectory, timeout: Duration = .seconds(120)
    ) async throws -> String {
        // `ip netns` keeps its names below /run, which is nobody's here but root's.
        let script = "mount -t tmpfs none /run && mkdir /run/netns && exec \"$@\""
        let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let result = try await CommandRunner.run(
            "unshare",
            namespaces + [
                "sh", "-c", script, "sh", program, "--testing-library", "swift-testing", "--filter", "\(suite)/\(test)\\(",
            ],
            environment: ["XDG_RUNTIME_DIR": directory.path], timeout: timeout)
        let printed = result.standardOutput + result.standardError
        guard result.succeeded, printed.contains("Test \(test)() passed") else {
            throw CommandFailure.failed(command: "\(suite)/\(test) in namespaces of its own", end: result.end, output: printed)
        }
        return printed
    }

    /// Whether a user of this process's namespace has that number.
    private static func maps(_ user: UInt32) -> Bool {
        guard let map = try? String(contentsOfFile: "/proc/self/uid_map", encoding: .utf8) else { return false }
        return map.split(separator: "\n").contains { line in
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            return numbers.count == 3 && numbers[0] <= user && UInt64(user) < numbers[0] + numbers[2]
        }
    }
}
