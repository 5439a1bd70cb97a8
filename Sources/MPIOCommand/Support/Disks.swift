import ArgumentParser
import Foundation
import MPIO

/// An open LUN as a store of blocks.
struct DiskStore: BlockStore {
    let disk: MultipathDisk

    var name: String { disk.name }
    var byteCount: UInt64 { disk.capacityByteCount }
    var blockSize: Int { disk.blockSize }

    func read(into buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try await disk.read(into: buffer, range: 0..<byteCount, at: offset)
    }

    func write(_ buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try await disk.write(buffer, range: 0..<byteCount, at: offset)
    }

    func flush() async throws { try await disk.flush() }

    /// Throws where a range on the command line does not fall on blocks or does not lie on the disk.
    func check(offset: UInt64, byteCount: UInt64) throws {
        let block = UInt64(blockSize)
        guard offset % block == 0, byteCount % block == 0 else {
            throw CommandFailure("offset and length have to be multiples of the block size of \(name), \(block) bytes", status: ExitStatus.usage)
        }
        guard offset <= self.byteCount, byteCount <= self.byteCount - offset else {
            throw CommandFailure("the range reaches past the end of \(name), \(self.byteCount) bytes", status: ExitStatus.usage)
        }
    }
}

/// Runs `body` with a manager that is shut down (logged out) afterwards, however `body` ends.
/// - Parameter subcommand: what `mpio paths` shows as the holder.
func withManager<Value: Sendable>(
    _ policy: Configuration, subcommand: String, isInspectable: Bool = true, runtimeDirectory: String? = nil,
    hostsTarget: Bool = false, hostedSocketCount: Int = 0, lookLimits: OpeningLimits? = nil,
    _ body: @Sendable (PathManager) async throws -> Value
) async throws -> Value {
    var options = PathManager.Options()
    options.command = "mpio \(subcommand)"
    options.isInspectable = isInspectable
    options.hostsTarget = hostsTarget
    options.onlyLooks = lookLimits != nil
    if let lookLimits { options.lookLimits = lookLimits }
    options.hostedSocketCount = hostedSocketCount
    if let runtimeDirectory { options.runtimeDirectory = runtimeDirectory }
    let manager = try await PathManager(configuration: policy, options: options)
    let value: Value
    do {
        value = try await body(manager)
    } catch {
        // What went wrong first is what the user needs to know.
        try? await manager.shutdown()
        throw error
    }
    try await manager.shutdown()
    return value
}

extension Configuration {
    /// The name of the LUN that the user named by its name or identity.
    func lunName(_ text: String) throws -> String {
        if let found = luns.first(where: { $0.isNamed(text) }) { return found.name }
        throw CommandFailure(hasNone(text), status: ExitStatus.usage)
    }

    /// That no LUN has this name, and which there are.
    func hasNone(_ text: String) -> String {
        let hint = luns.isEmpty ? "it has none" : "it has \(luns.map(\.name).joined(separator: ", "))"
        return "the policy file\(file.map { " \($0)" } ?? "") has no LUN '\(text)'; \(hint)"
    }
}

/// A progress line that is told from many threads.
final class ProgressLine: @unchecked Sendable {
    private let lock = NSLock()
    private var progress: Progress
    private var highest: UInt64 = 0

    init(total: UInt64) {
        progress = Progress(total: total)
    }

    func update(_ done: UInt64) {
        lock.withLock {
            highest = max(highest, done)
            progress.update(highest)
        }
    }

    func finish() { lock.withLock { progress.finish() } }
}
