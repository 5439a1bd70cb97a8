import AsyncIO
import Dispatch
import Foundation
import ISCSITarget
import TestSupport

/// The array of the documentation's examples, on loopback: target `iqn.2026-11.org.example:array-1` with the portals
/// 10.0.1.10 and 10.0.2.10, and a folder with a policy file in which the examples' commands run.
final class DocumentedArray {
    static let targetName = "iqn.2026-11.org.example:array-1"

    let folder: TemporaryDirectory
    let portals: [LoopbackPortal]
    private let reactor: LibaioReactor
    private let target: EmbeddedTarget

    init(units: [String] = ["0=memory,size=64M", "1=memory,size=64M"], filter: (any CommandFilter & Sendable)? = nil) throws {
        folder = try TemporaryDirectory("docs")
        portals = try LoopbackPortal.unused(count: 2)
        let configuration = TargetConfiguration(
            name: Self.targetName,
            portals: portals.enumerated().map {
                TargetPortalConfiguration(
                    address: SocketAddress(numericHost: $0.element.address, port: $0.element.port)!,
                    groupTag: UInt16($0.offset + 1))
            }, logicalUnits: try units.map { try LogicalUnitConfiguration(parsing: $0) })
        reactor = try LibaioReactor()
        try reactor.start()
        let port = reactor
        target = try Self.run(on: reactor) {
            let target = try EmbeddedTarget(configuration: configuration, port: port)
            target.filter = filter
            try target.start()
            return target
        }
    }

    func stop() throws {
        let target = target
        try Self.run(on: reactor) { target.stop() }
        reactor.stop()
    }

    private static func run<Value: Sendable>(on reactor: LibaioReactor, _ body: @escaping @Sendable () throws -> Value) throws -> Value {
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var result: Result<Value, any Error>?
        guard reactor.enqueue({
            result = Result { try body() }
            done.signal()
        }) else { throw CancellationError() }
        done.wait()
        return try result!.get()
    }

    /// `text` with the documentation's addresses replaced by this array's.
    func localized(_ text: String) -> String {
        var text = text
        for (address, portal) in zip(["10.0.1.10", "10.0.2.10"], portals) {
            text = text.replacing("\(address):3260", with: portal.description).replacing(address, with: portal.description)
        }
        return text.replacing(", from: 10.0.1.5", with: "").replacing(", from: 10.0.2.5", with: "")
    }

    func writePolicy(_ yaml: String, to name: String = "mpio.yaml") throws {
        try folder.file(name, contents: Array(localized(yaml).utf8))
    }

    // MARK: Programs

    /// Where executables and this test bundle are built.
    static let builtFolder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path

    var environment: [String: String] {
        [
            "PATH": Self.builtFolder + ":/usr/local/bin:/usr/bin:/bin", "HOME": folder.path, "XDG_RUNTIME_DIR": folder.path,
            "MPIO_CONFIG": "", "XDG_CONFIG_HOME": "", "SWIFT_BACKTRACE": "enable=no",
        ]
    }

    /// What the examples say takes longer than a test should.
    private static let shortened = ["--time 10s": "--time 150ms", "--size 1G": "--size 8M"]

    /// Runs a line of the documentation in the shell that its reader has.
    func runLine(_ line: String) async throws -> CommandResult {
        var line = localized(line)
        for (long, short) in Self.shortened { line = line.replacing(long, with: short) }
        return try await CommandRunner.run(
            "/bin/sh", ["-c", "cd '\(folder.path)' && \(line)"], environment: environment, timeout: .seconds(20))
    }

    /// Starts a line that goes on until it is interrupted.
    func startLine(_ line: String) throws -> ChildProcess {
        try ChildProcess(
            executable: "/bin/sh", arguments: ["-c", "cd '\(folder.path)' && exec \(localized(line))"], environment: environment,
            standardOutput: .file(folder.file("background.out")), standardError: .file(folder.file("background.err")))
    }
}
