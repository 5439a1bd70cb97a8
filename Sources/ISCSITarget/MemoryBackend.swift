/// Blocks in memory, allocated as they are first written: a 1 TiB unit costs what was put into it.
final class MemoryBackend: LogicalUnitBackend {
    /// What is allocated and freed at once; the grain of the unit's provisioning.
    static let chunkByteCount = 64 << 10

    let byteCount: UInt64
    weak var client: (any BackendClient)?
    var writesAtOnce: Bool { true }
    var hasVolatileCache: Bool { false }
    var isThinlyProvisioned: Bool { true }

    /// The second level holds this many chunks (64 MiB of blocks), so that the first stays small.
    private static let chunksPerTable = 1024
    private typealias Table = UnsafeMutablePointer<UnsafeMutableRawPointer?>
    private var tables: [Table?]
    private(set) var allocatedByteCount = 0

    init(byteCount: UInt64) {
        self.byteCount = byteCount
        let span = UInt64(Self.chunkByteCount * Self.chunksPerTable)
        tables = Array(repeating: nil, count: Int((byteCount + span - 1) / span))
    }

    deinit {
        for table in tables {
            guard let table else { continue }
            for index in 0..<Self.chunksPerTable { table[index]?.deallocate() }
            table.deallocate()
        }
    }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        forEachPiece(offset, memory.count) { chunk, within, done, count in
            let target = UnsafeMutableRawBufferPointer(rebasing: memory[done..<done + count])
            if let source = self[chunk] {
                target.copyMemory(from: UnsafeRawBufferPointer(start: source + within, count: count))
            } else {
                target.initializeMemory(as: UInt8.self, repeating: 0)
            }
        }
        return .done
    }

    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        forEachPiece(offset, memory.count) { chunk, within, done, count in
            let target = UnsafeMutableRawBufferPointer(start: allocated(chunk) + within, count: count)
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[done..<done + count]))
        }
        return .done
    }

    func synchronize(token: UInt32) -> BackendProgress { .done }

    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        // A range may cover the whole unit: whole tables are dropped at a step.
        var position = offset
        let end = offset + byteCount
        let chunkSize = UInt64(Self.chunkByteCount)
        let tableSize = chunkSize * UInt64(Self.chunksPerTable)
        while position < end {
            guard tables[Int(position / tableSize)] != nil else {
                position = min(end, (position / tableSize + 1) * tableSize)
                continue
            }
            let chunk = Int(position / chunkSize)
            let next = min(end, UInt64(chunk + 1) * chunkSize)
            if let memory = self[chunk] {
                // The last chunk of the unit may be a part of one.
                let isWhole = position % chunkSize == 0 && (next % chunkSize == 0 || next == self.byteCount)
                if isWhole {
                    memory.deallocate()
                    tables[chunk / Self.chunksPerTable]![chunk % Self.chunksPerTable] = nil
                    allocatedByteCount -= Self.chunkByteCount
                } else {
                    (memory + Int(position % chunkSize)).initializeMemory(
                        as: UInt8.self, repeating: 0, count: Int(next - position))
                }
            }
            position = next
        }
        return .done
    }

    func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64) {
        let chunkSize = UInt64(Self.chunkByteCount)
        let first = Int(offset / chunkSize)
        let isMapped = self[first] != nil
        var end = UInt64(first + 1) * chunkSize
        // Bounded, so that one command over an empty unit does not walk all of it.
        var steps = 0
        while end < byteCount, steps < 65_536, (self[Int(end / chunkSize)] != nil) == isMapped {
            end += chunkSize
            steps += 1
        }
        return (isMapped, min(end, byteCount) - offset)
    }

    func close() {}

    private subscript(chunk: Int) -> UnsafeMutableRawPointer? {
        tables[chunk / Self.chunksPerTable]?[chunk % Self.chunksPerTable]
    }

    private func allocated(_ chunk: Int) -> UnsafeMutableRawPointer {
        let (outer, inner) = (chunk / Self.chunksPerTable, chunk % Self.chunksPerTable)
        let table: Table
        if let existing = tables[outer] {
            table = existing
        } else {
            table = .allocate(capacity: Self.chunksPerTable)
            table.initialize(repeating: nil, count: Self.chunksPerTable)
            tables[outer] = table
        }
        if let memory = table[inner] { return memory }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: Self.chunkByteCount, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: Self.chunkByteCount)
        table[inner] = memory
        allocatedByteCount += Self.chunkByteCount
        return memory
    }

    /// Splits a range at chunk borders: chunk, offset in it, bytes done before, bytes of this piece.
    @inline(__always)
    private func forEachPiece(_ offset: UInt64, _ count: Int, _ body: (Int, Int, Int, Int) -> Void) {
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let within = Int(position % UInt64(Self.chunkByteCount))
            let piece = min(count - done, Self.chunkByteCount - within)
            body(Int(position / UInt64(Self.chunkByteCount)), within, done, piece)
            done += piece
        }
    }
}
