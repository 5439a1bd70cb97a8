import Glibc

/// What each block may hold: every write in the order of submission, and how far back a read may see.
///
/// An acknowledged write, and one that a read has seen, is the floor for everything that begins later:
/// nothing older may be seen again. Overlapping writes keep the order of their submission, so the order of
/// the list is the order on the disk; a write that failed may or may not have been done, and may be done
/// late, but never over a later one that was acknowledged.
final class BlockModel {
    /// 0 stands for zeroes.
    typealias Generation = UInt64

    enum State { case pending, acknowledged, unknown, void }

    private struct Entry {
        var generation: Generation
        var state: State
    }

    private struct Block {
        var entries: [Entry] = [Entry(generation: 0, state: .acknowledged)]
        var floor = 0
    }

    let blockSize: Int
    private var blocks: [Block]
    /// Generations that were given to writes of the workload, with the first block and the count.
    private var ranges: [Generation: (lba: Int, count: Int)] = [:]
    private(set) var lastGeneration: Generation = 0

    init(blockCount: Int, blockSize: Int) {
        self.blockSize = blockSize
        blocks = Array(repeating: Block(), count: blockCount)
    }

    var blockCount: Int { blocks.count }

    // MARK: Writes

    struct Write {
        var generation: Generation
        var lba: Int
        /// The place of the write in each block's list.
        var places: [Int]
    }

    func beginWrite(lba: Int, count: Int, zeroes: Bool) -> Write {
        var generation: Generation = 0
        if !zeroes {
            lastGeneration += 1
            generation = lastGeneration
            ranges[generation] = (lba, count)
        }
        var places: [Int] = []
        for block in lba..<lba + count {
            places.append(blocks[block].entries.count)
            blocks[block].entries.append(Entry(generation: generation, state: .pending))
        }
        return Write(generation: generation, lba: lba, places: places)
    }

    func end(_ write: Write, _ state: State) {
        for (offset, place) in write.places.enumerated() {
            let block = write.lba + offset
            blocks[block].entries[place].state = state
            if state == .acknowledged { blocks[block].floor = max(blocks[block].floor, place) }
        }
    }

    /// The last write's generation, however it stands.
    func latest(_ lba: Int) -> Generation { blocks[lba].entries[blocks[lba].entries.count - 1].generation }

    /// Whether, when `write` was carried out, each block certainly held `expected`.
    func certainlyHeld(_ expected: Generation, before write: Write) -> Bool {
        write.places.indices.allSatisfy { offset in
            let entries = blocks[write.lba + offset].entries
            // What was void was never there; the last that was not must be the one, and certain.
            var place = write.places[offset] - 1
            while place > 0, entries[place].state == .void { place -= 1 }
            return entries[place].generation == expected && entries[place].state == .acknowledged
        }
    }

    // MARK: Reads

    func floors(lba: Int, count: Int) -> [Int] { blocks[lba..<lba + count].map(\.floor) }

    /// Checks what a read returned that began when the floors were these. Nil: it is as it may be.
    func check(_ memory: UnsafeRawBufferPointer, lba: Int, floors: [Int]) -> String? {
        for (offset, floor) in floors.enumerated() {
            let bytes = UnsafeRawBufferPointer(rebasing: memory[offset * blockSize..<(offset + 1) * blockSize])
            guard let generation = Self.generation(of: bytes, lba: lba + offset) else {
                return "block \(lba + offset) holds what was never written: \(Self.words(bytes))"
            }
            if let words = check(generation, block: lba + offset, floor: floor) { return words }
        }
        return nil
    }

    private func check(_ generation: Generation, block: Int, floor: Int) -> String? {
        let entries = blocks[block].entries
        if let place = (floor..<entries.count).first(where: {
            entries[$0].generation == generation && entries[$0].state != .void
        }) {
            blocks[block].floor = max(blocks[block].floor, place)
            return nil
        }
        let name = generation == 0 ? "zeroes" : "write \(generation)"
        guard let older = entries.lastIndex(where: { $0.generation == generation }) else {
            return "block \(block) holds \(name), which was never written there"
        }
        if entries[older].state == .void { return "block \(block) holds \(name), which ended without being done" }
        return "block \(block) holds \(name) (number \(older)), older than write \(entries[floor].generation) (number \(floor)), which was acknowledged or seen before the read began"
    }

    // MARK: Contents

    func fill(_ memory: UnsafeMutableRawBufferPointer, lba: Int, generation: Generation) {
        for offset in 0..<memory.count / blockSize {
            let block = memory.baseAddress! + offset * blockSize
            memset(block, generation == 0 ? 0 : Self.filler(generation), blockSize)
            block.storeBytes(of: generation == 0 ? 0 : UInt64(lba + offset), as: UInt64.self)
            block.storeBytes(of: generation, toByteOffset: 8, as: UInt64.self)
        }
    }

    private static func filler(_ generation: Generation) -> Int32 { Int32(generation % 251) + 1 }

    /// Whose bytes these are; nil: nobody's.
    static func generation(of bytes: UnsafeRawBufferPointer, lba: Int) -> Generation? {
        let generation = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        let stamp = bytes.loadUnaligned(as: UInt64.self)
        let first = bytes[16]
        guard stamp == (generation == 0 ? 0 : UInt64(lba)), first == UInt8(generation == 0 ? 0 : Self.filler(generation)),
            memcmp(bytes.baseAddress! + 16, bytes.baseAddress! + 17, bytes.count - 17) == 0
        else { return nil }
        return generation
    }

    static func words(_ bytes: UnsafeRawBufferPointer) -> String {
        bytes.prefix(24).map { String($0, radix: 16) }.joined(separator: " ")
    }

    /// Whether this is the data of a write to these blocks.
    func isWrite(_ generation: Generation, lba: Int) -> Bool {
        guard let range = ranges[generation] else { return false }
        return lba >= range.lba && lba < range.lba + range.count
    }
}
