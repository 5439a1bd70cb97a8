import Foundation
import MPIO
import Synchronization

/// Copies the whole of one store to the start of another, several pieces at once.
struct Copy: Sendable {
    let source: any BlockStore
    let destination: any BlockStore
    let piecesAtOnce: Int
    /// A multiple of every block size there is.
    private let pieceByteCount = 1 << 20

    var byteCount: UInt64 { source.byteCount }

    init(from source: any BlockStore, to destination: any BlockStore, piecesAtOnce: Int) throws {
        guard source.byteCount <= destination.byteCount else {
            throw DoesNotFit(byteCount: source.byteCount, room: destination.byteCount)
        }
        (self.source, self.destination, self.piecesAtOnce) = (source, destination, piecesAtOnce)
    }

    func run(progress: ProgressLine) async throws {
        try await forEachPiece(progress) { piece, buffer in
            try await load(piece, from: source, into: buffer, at: 0)
            try await store(piece, of: buffer)
        }
        try await destination.sync()
    }

    /// Reads both again; nil where they are equal.
    func firstDifference(progress: ProgressLine) async throws -> UInt64? {
        let first = Mutex(UInt64.max)
        try await forEachPiece(progress) { piece, buffer in
            try await load(piece, from: source, into: buffer, at: 0)
            try await load(piece, from: destination, into: buffer, at: pieceByteCount)
            let bytes = buffer.bytes
            guard memcmp(bytes.baseAddress!, bytes.baseAddress! + pieceByteCount, piece.count) != 0,
                let place = (0..<piece.count).first(where: { bytes[$0] != bytes[pieceByteCount + $0] })
            else { return }
            first.withLock { $0 = min($0, piece.lowerBound + UInt64(place)) }
        }
        let found = first.withLock { $0 }
        return found == .max ? nil : found
    }

    // MARK: Pieces

    /// Runs `body` for each piece. So many tasks take the next piece as soon as they are done with one, each with a buffer of
    /// its own, large enough for two.
    private func forEachPiece(
        _ progress: ProgressLine, _ body: @escaping @Sendable (Range<UInt64>, IOBuffer) async throws -> Void
    ) async throws {
        let pieces = Pieces(byteCount: byteCount, pieceByteCount: UInt64(pieceByteCount))
        try await withThrowingTaskGroup { group in
            for _ in 0..<piecesAtOnce {
                group.addTask {
                    let buffer = IOBuffer(byteCount: 2 * pieceByteCount)
                    while let piece = pieces.next() {
                        try Task.checkCancellation()
                        try await body(piece, buffer)
                        progress.advance(by: piece.count)
                    }
                }
            }
            try await group.waitForAll()
        }
        progress.finish()
    }

    /// Only whole blocks can be read; what comes after the piece is not looked at.
    private func load(_ piece: Range<UInt64>, from store: any BlockStore, into buffer: IOBuffer, at start: Int) async throws {
        let count = roundedUp(piece.count, to: store.blockSize)
        try await store.load(start..<(start + count), of: buffer, from: piece.lowerBound)
    }

    /// Only whole blocks can be written: where the source ends within one, the rest of that block stays what it is.
    private func store(_ piece: Range<UInt64>, of buffer: IOBuffer) async throws {
        let blockSize = destination.blockSize
        let count = roundedUp(piece.count, to: blockSize)
        if count > piece.count {
            let block = pieceByteCount..<(pieceByteCount + blockSize)
            try await destination.load(block, of: buffer, from: piece.lowerBound + UInt64(count - blockSize))
            let kept = count - piece.count
            buffer.bytes[piece.count..<count].copyBytes(from: buffer.bytes[(block.upperBound - kept)..<block.upperBound])
        }
        try await destination.store(0..<count, of: buffer, to: piece.lowerBound)
    }

    private func roundedUp(_ count: Int, to blockSize: Int) -> Int {
        (count + blockSize - 1) / blockSize * blockSize
    }
}

struct DoesNotFit: Error, CustomStringConvertible {
    var byteCount: UInt64
    var room: UInt64
    var description: String { "\(byteCount) bytes do not fit into \(room)" }
}

/// Hands out pieces in order, to many tasks.
private final class Pieces: Sendable {
    private let byteCount: UInt64
    private let pieceByteCount: UInt64
    private let nextIndex = Atomic<UInt64>(0)

    init(byteCount: UInt64, pieceByteCount: UInt64) {
        self.byteCount = byteCount
        self.pieceByteCount = pieceByteCount
    }

    func next() -> Range<UInt64>? {
        let start = nextIndex.add(1, ordering: .relaxed).oldValue * pieceByteCount
        return start < byteCount ? start..<min(start + pieceByteCount, byteCount) : nil
    }
}
