import MPIO
import Multipath

/// What the DocC articles show that no program under Examples/ has. The tests run it, and see to it that the articles show
/// this and nothing else.
enum ArticleSnippets {
    // MARK: Getting started

    static func discover(_ address: String) async throws -> Configuration {
        let discovery = Discovery(portals: [try PortalAddress(parsing: address)])
        let report = try await discovery.run()
        for lun in report.luns { print(lun.identity, lun.capacityBytes, "\(lun.paths.count) paths") }
        let file = PolicyFileWriter().text(report.storage())
        return try Configuration(yaml: file)
    }

    // MARK: Policies

    static func changePolicy(of disk: MultipathDisk) async throws {
        var options = PolicyOptions()
        options.switchAfter = .bytes(64 << 10)
        try await disk.setPolicy(PolicySettings(.roundRobin, options: options))
    }

    static func explain(_ disk: MultipathDisk) async throws {
        let explanation = try await disk.explain()
        print(explanation.reason)
        for path in explanation.paths where !path.isUsed { print(path.id, "is not used:", path.reason) }
    }

    // MARK: Fail-over

    static func watch(_ disk: MultipathDisk, report: (String) -> Void) async {
        for await event in disk.events {
            switch event.event {
            case .pathLost(_, let failure, let redriven):
                report("\(event.path ?? "?") lost: \(failure); \(redriven) requests sent elsewhere")
            case .allPathsLost:
                report("no path is left; requests wait for pdo-remove-period")
            default:
                report(event.description)
            }
        }
    }

    static func replaceCable(_ disk: MultipathDisk, path: String, work: () async throws -> Void) async throws {
        try await disk.changePath(path, .drain)
        while try await disk.paths.contains(where: { $0.id == path && $0.inFlight > 0 }) {
            try await Task.sleep(for: .milliseconds(10))
        }
        try await work()
        try await disk.changePath(path, .restore)
    }

    /// Takes a lock that is a block of its own: old and new are one block each.
    static func takeLock(_ disk: MultipathDisk, old: [UInt8], new: [UInt8]) async throws -> Bool {
        let blocks = IOBuffer(byteCount: 2 * disk.blockSize)
        blocks.bytes.copyBytes(from: old + new)
        do {
            try await disk.compareAndWrite(blocks, at: 0)
            return true
        } catch DiskError.miscompare {
            return false  // somebody else has it
        } catch DiskError.outcomeUnknown {
            let block = IOBuffer(byteCount: disk.blockSize)
            try await disk.read(into: block, at: 0)
            return block.bytes.elementsEqual(new)
        }
    }

    // MARK: Performance

    static func readAll(_ disk: MultipathDisk, offsets: [UInt64]) async throws {
        try await disk.run {
            try await withThrowingTaskGroup { group in
                for offset in offsets {
                    group.addTask {
                        let buffer = IOBuffer(byteCount: 4096)
                        try await disk.read(into: buffer, at: offset)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    static func readInBatches(_ disk: MultipathDisk, count: Int, done: @escaping @Sendable (IORequestCompletion) -> Void) -> (IOQueue, IOBuffer) {
        let buffer = IOBuffer(byteCount: count * 4096)
        let queue = IOQueue(disk: disk) { completions in
            for completion in completions { done(completion) }  // on the reactor's thread
        }
        queue.submit((0..<count).map { index in
            IORequest(
                .read, offset: UInt64(index) * 4096, byteCount: 4096,
                memory: buffer.bytes.baseAddress! + index * 4096, token: UInt64(index))
        })
        return (queue, buffer)
    }
}
