import Foundation
import MPIO

/// Copies a range from one store to another, several chunks at once.
struct BlockCopy: Sendable {
    var source: any BlockStore
    var destination: any BlockStore
    /// From the start of both, in bytes. Where it ends within a block of the destination, the rest of that block is kept.
    var byteCount: UInt64
    /// A multiple of every block size.
    var chunkByteCount = 1 << 20
    /// Chunks under way at once.
    var depth = 8

    /// Throws where the destination is too small; copies nothing then.
    func check() throws {
        guard byteCount <= source.byteCount else {
            throw CommandFailure("\(source.name) has only \(HumanText.size(source.byteCount))")
        }
        guard byteCount <= destination.byteCount else {
            throw CommandFailure(
                "\(source.name) (\(HumanText.size(byteCount))) does not fit into \(destination.name) (\(HumanText.size(destination.byteCount)))")
        }
    }

    /// Copies, then flushes the destination. `progress` gets the bytes done so far, from any thread, in any order.
    func run(progress: @escaping @Sendable (UInt64) -> Void) async throws {
        try check()
        try await forEachChunk(progress) { buffer, offset, count in
            try await source.read(into: buffer, byteCount: rounded(count, to: source.blockSize), at: offset)
            let whole = rounded(count, to: destination.blockSize)
            if whole > count { try await fillTail(of: buffer, from: count, to: whole, at: offset) }
            try await destination.write(buffer, byteCount: whole, at: offset)
        }
        try await destination.flush()
    }

    /// Reads both again and compares. Throws ``CopyMismatch``.
    func verify(progress: @escaping @Sendable (UInt64) -> Void) async throws {
        let other = BufferPool(count: depth, byteCount: chunkByteCount)
        try await forEachChunk(progress) { buffer, offset, count in
            let second = other.take()
            defer { other.give(second) }
            try await source.read(into: buffer, byteCount: rounded(count, to: source.blockSize), at: offset)
            try await destination.read(into: second, byteCount: rounded(count, to: destination.blockSize), at: offset)
            guard memcmp(buffer.bytes.baseAddress!, second.bytes.baseAddress!, count) != 0 else { return }
            let place = (0..<count).first { buffer[$0] != second[$0] } ?? 0
            throw CopyMismatch(offset: offset + UInt64(place), source: source.name, destination: destination.name)
        }
    }

    /// The bytes of the last block that are not the source's stay what they are.
    private func fillTail(of buffer: IOBuffer, from count: Int, to whole: Int, at offset: UInt64) async throws {
        let block = IOBuffer(byteCount: destination.blockSize)
        let start = whole - destination.blockSize
        try await destination.read(into: block, byteCount: destination.blockSize, at: offset + UInt64(start))
        memcpy(buffer.bytes.baseAddress! + count, block.bytes.baseAddress! + (count - start), whole - count)
    }

    private func rounded(_ count: Int, to blockSize: Int) -> Int {
        (count + blockSize - 1) / blockSize * blockSize
    }

    private func forEachChunk(
        _ progress: @escaping @Sendable (UInt64) -> Void,
        _ body: @escaping @Sendable (IOBuffer, UInt64, Int) async throws -> Void
    ) async throws {
        let cursor = ChunkCursor(byteCount: byteCount, chunkByteCount: UInt64(chunkByteCount))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(depth, max(1, Int(clamping: byteCount / UInt64(chunkByteCount) + 1))) {
                group.addTask {
                    let buffer = IOBuffer(byteCount: chunkByteCount)
                    while let (offset, count) = cursor.next() {
                        try Task.checkCancellation()
                        try await body(buffer, offset, count)
                        progress(cursor.finished(count))
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}

/// The copy is not what was copied.
struct CopyMismatch: Error, CustomStringConvertible {
    var offset: UInt64
    var source: String
    var destination: String

    var description: String { "\(source) and \(destination) differ at byte \(offset)" }
}

/// Hands out chunks in order and counts those that are done.
private final class ChunkCursor: @unchecked Sendable {
    private let lock = NSLock()
    private let byteCount: UInt64
    private let chunkByteCount: UInt64
    private var nextOffset: UInt64 = 0
    private var done: UInt64 = 0

    init(byteCount: UInt64, chunkByteCount: UInt64) {
        self.byteCount = byteCount
        self.chunkByteCount = chunkByteCount
    }

    func next() -> (offset: UInt64, count: Int)? {
        lock.withLock {
            guard nextOffset < byteCount else { return nil }
            let count = min(chunkByteCount, byteCount - nextOffset)
            defer { nextOffset += count }
            return (nextOffset, Int(count))
        }
    }

    func finished(_ count: Int) -> UInt64 {
        lock.withLock {
            done += UInt64(count)
            return done
        }
    }
}

private final class BufferPool: @unchecked Sendable {
    private let lock = NSLock()
    private var free: [IOBuffer]

    init(count: Int, byteCount: Int) {
        free = (0..<count).map { _ in IOBuffer(byteCount: byteCount) }
    }

    /// At most as many as the pool was made with are out at once.
    func take() -> IOBuffer { lock.withLock { free.removeLast() } }
    func give(_ buffer: IOBuffer) { lock.withLock { free.append(buffer) } }
}
