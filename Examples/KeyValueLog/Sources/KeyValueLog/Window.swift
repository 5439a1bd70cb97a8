import MPIO

/// Reads a disk from front to back in large pieces, and finds records in them.
struct Window {
    private let disk: MultipathDisk
    /// Nothing is read from here on, in bytes.
    private let end: UInt64
    private var buffer = IOBuffer(byteCount: 1 << 20)
    /// What the buffer holds.
    private var held: Range<UInt64> = 0..<0

    init(_ disk: MultipathDisk, end: UInt64) {
        self.disk = disk
        self.end = end
    }

    /// The record at `offset`, and its checksum; nil where there is none that follows on `chain`.
    nonisolated(nonsending) mutating func record(at offset: UInt64, chain: UInt32) async throws -> (record: Record, checksum: UInt32)? {
        guard let header = try await bytes(at: offset, count: Record.headerByteCount),
            let count = Record.byteCount(header: header), let bytes = try await bytes(at: offset, count: count),
            let record = Record(bytes, chain: chain)
        else { return nil }
        return (record, Record.checksum(bytes))
    }

    /// Valid until the next call; nil past the end.
    private nonisolated(nonsending) mutating func bytes(at offset: UInt64, count: Int) async throws -> UnsafeRawBufferPointer? {
        guard offset <= end, UInt64(count) <= end - offset else { return nil }
        if !held.contains(offset) || held.upperBound - offset < count { try await load(offset, count) }
        let start = Int(offset - held.lowerBound)
        return UnsafeRawBufferPointer(rebasing: buffer.bytes[start..<(start + count)])
    }

    private nonisolated(nonsending) mutating func load(_ offset: UInt64, _ count: Int) async throws {
        let needed = (count + disk.blockSize - 1) / disk.blockSize * disk.blockSize
        if needed > buffer.byteCount { buffer = IOBuffer(byteCount: needed) }
        let read = min(buffer.byteCount, Int(clamping: end - offset))
        try await disk.read(into: buffer, range: 0..<read, at: offset)
        held = offset..<(offset + UInt64(read))
    }
}
