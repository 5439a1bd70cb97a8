import Foundation
import MPIO
import Testing

@testable import MPIOCommand

/// A disk in memory that insists on whole blocks.
private final class MemoryStore: BlockStore, @unchecked Sendable {
    let name: String
    let blockSize: Int
    private let lock = NSLock()
    private var bytes: [UInt8]
    private var failsAt: UInt64?
    private(set) var flushes = 0

    init(name: String = "memory", bytes: [UInt8], blockSize: Int = 512, failsAt: UInt64? = nil) {
        precondition(bytes.count % blockSize == 0)
        self.name = name
        self.bytes = bytes
        self.blockSize = blockSize
        self.failsAt = failsAt
    }

    var byteCount: UInt64 { UInt64(lock.withLock { bytes.count }) }
    var content: [UInt8] { lock.withLock { bytes } }

    private func check(_ byteCount: Int, _ offset: UInt64) throws {
        if byteCount % blockSize != 0 || offset % UInt64(blockSize) != 0 || offset + UInt64(byteCount) > self.byteCount {
            Issue.record("\(byteCount) bytes at \(offset) with blocks of \(blockSize)")
            throw CommandFailure("misaligned")
        }
        if let failsAt, (offset..<offset + UInt64(byteCount)).contains(failsAt) { throw CommandFailure("bad block") }
    }

    func read(into buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try check(byteCount, offset)
        await Task.yield()
        lock.withLock {
            bytes[Int(offset)..<Int(offset) + byteCount].withUnsafeBytes { buffer.bytes.copyMemory(from: $0) }
        }
    }

    func write(_ buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try check(byteCount, offset)
        await Task.yield()
        lock.withLock { bytes.replaceSubrange(Int(offset)..<Int(offset) + byteCount, with: buffer.bytes[..<byteCount]) }
    }

    func flush() async throws { lock.withLock { flushes += 1 } }
}

private func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 8)) }
}

@Suite struct BlockCopyTests {
    @Test(arguments: [0, 512, 8192, 65_536, 200_192])
    func everyByteArrivesAndOnlyThose(_ count: Int) async throws {
        let source = MemoryStore(bytes: pattern(count))
        let destination = MemoryStore(bytes: pattern(262_144, seed: 99), blockSize: 4096)
        let old = destination.content
        let copy = BlockCopy(source: source, destination: destination, byteCount: UInt64(count), chunkByteCount: 8192, depth: 3)
        try await copy.run { #expect($0 <= UInt64(count)) }
        #expect(Array(destination.content[..<count]) == source.content)
        #expect(Array(destination.content[count...]) == Array(old[count...]))
        #expect(destination.flushes == 1)
        try await copy.verify { _ in }
    }

    @Test func aDifferenceIsFoundWithItsPlace() async throws {
        var bytes = pattern(100_352)
        let source = MemoryStore(name: "a", bytes: bytes)
        bytes[70_001] ^= 1
        let destination = MemoryStore(name: "b", bytes: bytes)
        let copy = BlockCopy(source: source, destination: destination, byteCount: 100_352, chunkByteCount: 8192)
        let error = await #expect(throws: CopyMismatch.self) { try await copy.verify { _ in } }
        #expect(error?.description == "a and b differ at byte 70001")
    }

    @Test func whatDoesNotFitIsNotBegun() async throws {
        let destination = MemoryStore(bytes: pattern(512))
        let copy = BlockCopy(source: MemoryStore(bytes: pattern(1024)), destination: destination, byteCount: 1024)
        await #expect(throws: CommandFailure.self) { try await copy.run { _ in } }
        #expect(destination.content == pattern(512))
    }

    @Test func anErrorEndsTheCopyWithoutAFlush() async throws {
        let destination = MemoryStore(bytes: pattern(65_536, seed: 5))
        let copy = BlockCopy(source: MemoryStore(bytes: pattern(65_536), failsAt: 40_000), destination: destination, byteCount: 65_536, chunkByteCount: 4096, depth: 2)
        await #expect(throws: CommandFailure.self) { try await copy.run { _ in } }
        #expect(destination.flushes == 0)
    }

    @Test func filesAreMadeAsLongAsWhatIsCopied() async throws {
        let folder = Folder()
        let bytes = pattern(100_352)
        let file = try FileStore(writing: folder.path + "/out", byteCount: 100_352)
        try await BlockCopy(source: MemoryStore(bytes: bytes), destination: file, byteCount: 100_352, chunkByteCount: 16_384).run { _ in }
        #expect(Array(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/out"))) == bytes)
        // An odd file into blocks.
        try folder.write("hello", to: "in")
        let target = MemoryStore(bytes: bytes)
        try await BlockCopy(source: try FileStore(reading: folder.path + "/in"), destination: target, byteCount: 5).run { _ in }
        #expect(target.content == Array("hello".utf8) + bytes[5...])
        #expect(throws: CommandFailure.self) { try FileStore(reading: folder.path + "/none") }
    }

    @Test func streamsKeepTheirOrder() async throws {
        let folder = Folder()
        let bytes = pattern(300_032)
        let stream = BlockStream(store: MemoryStore(bytes: bytes), chunkByteCount: 4096, depth: 4)
        let output = open(folder.path + "/out", O_RDWR | O_CREAT, 0o600)
        defer { close(output) }
        try await stream.read(from: 512, byteCount: 299_520, to: output) { _ in }
        #expect(Array(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/out"))) == Array(bytes[512...]))

        let target = MemoryStore(bytes: [UInt8](repeating: 7, count: 300_544))
        lseek(output, 0, SEEK_SET)
        ftruncate(output, 100_001)
        let count = try await BlockStream(store: target, chunkByteCount: 4096, depth: 4).write(from: output, at: 1024) { _ in }
        #expect(count == 100_001)
        #expect(Array(target.content[1024..<101_025]) == Array(bytes[512..<100_513]))
        #expect(target.content[101_025...].allSatisfy { $0 == 7 } && target.content[..<1024].allSatisfy { $0 == 7 })
    }

    @Test func inputThatIsTooLongIsRefusedBeforeItsEndIsWritten() async throws {
        let folder = Folder()
        try folder.write(String(repeating: "x", count: 2000), to: "in")
        let input = open(folder.path + "/in", O_RDONLY)
        defer { close(input) }
        let target = MemoryStore(bytes: [UInt8](repeating: 7, count: 1024))
        await #expect(throws: CommandFailure.self) { try await BlockStream(store: target).write(from: input, at: 0) { _ in } }
        #expect(target.content.allSatisfy { $0 == 7 })
    }
}
