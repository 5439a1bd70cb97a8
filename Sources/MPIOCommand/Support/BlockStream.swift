import Foundation
import MPIO
import Synchronization

/// Streams between a store and a descriptor: a window of chunks is on its way on one side while the one before it
/// is on the other.
struct BlockStream: Sendable {
    var store: any BlockStore
    var chunkByteCount = 1 << 20
    var depth = 8

    private struct Chunk: Sendable {
        var buffer: IOBuffer
        var offset: UInt64
        var byteCount: Int
    }

    /// Writes the range's bytes to `descriptor`, in order. `offset` and `byteCount` are multiples of the block size.
    func read(from offset: UInt64, byteCount: UInt64, to descriptor: Int32, progress: @Sendable (UInt64) -> Void) async throws {
        let end = offset + byteCount
        let step = UInt64(chunkByteCount * depth)
        var start = offset
        var window = try await readWindow(start..<min(end, start + step))
        while !window.isEmpty {
            start = min(end, start + step)
            let range = start..<min(end, start + step)
            async let following = readWindow(range)
            for chunk in window {
                try Task.checkCancellation()
                try await blocking { try writeAll(UnsafeRawBufferPointer(rebasing: chunk.buffer.bytes[..<chunk.byteCount]), to: descriptor) }
            }
            progress(start - offset)
            window = try await following
        }
    }

    private func readWindow(_ range: Range<UInt64>) async throws -> [Chunk] {
        let chunks = stride(from: range.lowerBound, to: range.upperBound, by: chunkByteCount).map { offset in
            let count = Int(min(UInt64(chunkByteCount), range.upperBound - offset))
            return Chunk(buffer: IOBuffer(byteCount: count), offset: offset, byteCount: count)
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for chunk in chunks {
                group.addTask { try await store.read(into: chunk.buffer, byteCount: chunk.byteCount, at: chunk.offset) }
            }
            try await group.waitForAll()
        }
        return chunks
    }

    /// Writes all that comes from `descriptor`, from `offset` on, and flushes. Returns how much it was. What does not
    /// fit is an error, told before it is written; where the input ends within a block, the rest of that block is kept.
    func write(from descriptor: Int32, at offset: UInt64, progress: @Sendable (UInt64) -> Void) async throws -> UInt64 {
        var position = offset
        var window = try await readInput(descriptor, at: position)
        while !window.isEmpty {
            position += window.reduce(0) { $0 + UInt64($1.byteCount) }
            guard position <= store.byteCount else {
                throw CommandFailure("the input is longer than \(store.name) (\(HumanText.size(store.byteCount)))")
            }
            let next = position
            async let following = readInput(descriptor, at: next)
            try await writeWindow(window)
            progress(position - offset)
            window = try await following
        }
        try await store.flush()
        return position - offset
    }

    private func readInput(_ descriptor: Int32, at offset: UInt64) async throws -> [Chunk] {
        var chunks: [Chunk] = []
        var position = offset
        while chunks.count < depth {
            let buffer = IOBuffer(byteCount: chunkByteCount)
            let count = try await readChunk(descriptor, into: buffer)
            if count > 0 { chunks.append(Chunk(buffer: buffer, offset: position, byteCount: count)) }
            position += UInt64(count)
            if count < chunkByteCount { break }
        }
        return chunks
    }

    /// Ends, where the task is cancelled, also while nothing comes.
    private func readChunk(_ descriptor: Int32, into buffer: IOBuffer) async throws -> Int {
        let stop = Stop()
        return try await withTaskCancellationHandler {
            try await blocking { try readAll(descriptor, into: buffer.bytes, until: stop) }
        } onCancel: {
            stop.flag.store(true, ordering: .relaxed)
        }
    }

    private func writeWindow(_ window: [Chunk]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for chunk in window {
                group.addTask {
                    let whole = (chunk.byteCount + store.blockSize - 1) / store.blockSize * store.blockSize
                    if whole > chunk.byteCount {
                        let block = IOBuffer(byteCount: store.blockSize)
                        let start = whole - store.blockSize
                        try await store.read(into: block, byteCount: store.blockSize, at: chunk.offset + UInt64(start))
                        memcpy(
                            chunk.buffer.bytes.baseAddress! + chunk.byteCount, block.bytes.baseAddress! + (chunk.byteCount - start),
                            whole - chunk.byteCount)
                    }
                    try await store.write(chunk.buffer, byteCount: whole, at: chunk.offset)
                }
            }
            try await group.waitForAll()
        }
    }

    /// On a thread that may block: the other end of a pipe can take its time.
    private func blocking<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Self.queue.async { continuation.resume(with: Result(catching: work)) }
        }
    }

    private static let queue = DispatchQueue(label: "mpio.stream", attributes: .concurrent)
}

/// Set by a cancelled task, looked at by the thread that waits for it.
private final class Stop: Sendable {
    let flag = Atomic(false)
}

/// Fills the memory as far as there is input.
private func readAll(_ descriptor: Int32, into memory: UnsafeMutableRawBufferPointer, until stop: Stop) throws -> Int {
    var done = 0
    while done < memory.count {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&entry, 1, 100) <= 0 { if stop.flag.load(ordering: .relaxed) { throw CancellationError() } }
        let count = Foundation.read(descriptor, memory.baseAddress! + done, memory.count - done)
        if count == 0 { break }
        if count > 0 {
            done += count
        } else if errno != EINTR, errno != EAGAIN {
            throw CommandFailure("reading the input: \(String(cString: strerror(errno)))")
        }
    }
    return done
}
