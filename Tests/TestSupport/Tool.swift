import Foundation

/// A program that a test needs and that this machine lacks. It fails the test: a silent skip would hide it.
public struct MissingTool: Error, CustomStringConvertible {
    public let name: String
    public var description: String { "\(name) is not installed; run: make setup" }
}

/// Programs from the distribution, found by name.
public enum Tool {
    /// The absolute path of `name`, searched in `PATH` and in the administrator's directories, which Debian leaves
    /// out of an ordinary user's `PATH` although anybody may run `tgtd` from there.
    /// - Throws: ``MissingTool``, which says how to install it.
    public static func path(_ name: String) throws(MissingTool) -> String {
        let environment = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        let directories = environment.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin", "/usr/bin"]
        for directory in directories {
            let candidate = directory + "/" + name
            if access(candidate, X_OK) == 0 { return candidate }
        }
        throw MissingTool(name: name)
    }
}
