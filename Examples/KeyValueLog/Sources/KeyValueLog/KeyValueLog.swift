import MPIO

/// Keys and values on a LUN, as a log: every change is appended, and the last one for a key counts.
///
/// When ``put(_:for:)`` returns, the record is on stable storage. A crash loses no record that was acknowledged, and
/// ``open(_:)`` finds the end of the log again: it is where a record's checksum is wrong, or the record does not follow on
/// the one before.
///
/// The disk has two halves. One has the log; the other one takes over when the log is compacted, by the write of one block.
///
/// **One writer.** The log is not `Sendable`: the compiler sees to it that one task at a time uses it. That no other *process*
/// writes to the LUN is for you to see to.
final class KeyValueLog {
    /// Where a key's last record is.
    private struct Place {
        var offset: UInt64
        /// Header, key and value.
        var byteCount: Int
        /// The checksum that the record follows on.
        var chain: UInt32
    }

    private let disk: MultipathDisk
    /// Where the half with the log begins, in bytes.
    private var base: UInt64
    private var generation: UInt64
    /// Where the next record goes.
    private var tail: UInt64
    /// The checksum of the last record.
    private var chain: UInt32
    private var places: [String: Place] = [:]

    private init(_ disk: MultipathDisk, base: UInt64, generation: UInt64, chain: UInt32) {
        (self.disk, self.base, self.generation, self.chain) = (disk, base, generation, chain)
        tail = base + UInt64(disk.blockSize)
    }

    // MARK: Begin

    /// Makes the disk an empty log. What was there is lost.
    nonisolated(nonsending) static func create(on disk: MultipathDisk) async throws -> KeyValueLog {
        guard halfByteCount(of: disk) > disk.blockSize else { throw LogError.full }
        try await disk.writeZeroes(at: halfByteCount(of: disk), byteCount: UInt64(disk.blockSize))
        let block = IOBuffer(byteCount: disk.blockSize)
        let chain = LogHeader(generation: 1).encode(into: block.bytes)
        try await disk.write(block, at: 0, options: .forceUnitAccess)
        try await disk.flush()
        return KeyValueLog(disk, base: 0, generation: 1, chain: chain)
    }

    /// Takes up a log where it ended, cleanly or not.
    nonisolated(nonsending) static func open(_ disk: MultipathDisk) async throws -> KeyValueLog {
        let block = IOBuffer(byteCount: disk.blockSize)
        var newest: KeyValueLog?
        for base in [0, halfByteCount(of: disk)] {
            try await disk.read(into: block, at: base)
            guard let found = LogHeader.decode(UnsafeRawBufferPointer(block.bytes)) else { continue }
            guard found.header.generation > newest?.generation ?? 0 else { continue }
            newest = KeyValueLog(disk, base: base, generation: found.header.generation, chain: found.checksum)
        }
        guard let log = newest else { throw LogError.notALog }
        try await log.recover()
        return log
    }

    /// Reads the log from its beginning. It ends before the first record that is not whole.
    private nonisolated(nonsending) func recover() async throws {
        var window = Window(disk, end: end)
        while let record = try await window.record(at: tail, chain: chain) {
            note(record.record, Place(offset: tail, byteCount: record.record.byteCount, chain: chain))
            tail += UInt64(roundedUp(record.record.byteCount))
            chain = record.checksum
        }
        // What was read may still be in a cache only: nothing may follow on it that would outlive it.
        try await disk.flush()
    }

    // MARK: Use

    var keys: [String] { places.keys.sorted() }

    /// How much of the half is written, in bytes, and how much there is.
    var usage: (used: UInt64, available: UInt64) { (tail - base, end - base) }

    /// Nil where there is no such key.
    nonisolated(nonsending) func value(for key: String) async throws -> [UInt8]? {
        guard let place = places[key] else { return nil }
        return try await record(at: place).value
    }

    nonisolated(nonsending) func put(_ value: [UInt8], for key: String) async throws {
        try await append(Record(key: key, value: value))
    }

    /// Deletes a key, if it is there.
    nonisolated(nonsending) func delete(_ key: String) async throws {
        guard places[key] != nil else { return }
        try await append(Record(key: key, value: nil))
    }

    /// Writes what counts to the other half, then takes that one. A crash in between leaves the log as it was.
    nonisolated(nonsending) func compact() async throws {
        let other = base == 0 ? Self.halfByteCount(of: disk) : 0
        let block = IOBuffer(byteCount: disk.blockSize)
        let compacted = KeyValueLog(
            disk, base: other, generation: generation + 1, chain: LogHeader(generation: generation + 1).encode(into: block.bytes))
        for key in keys {
            guard let place = places[key] else { continue }
            // Not on stable storage yet, any of them: the flush below is for all.
            try await compacted.write(try await record(at: place), options: [])
        }
        try await disk.flush()
        try await disk.write(block, at: other, options: .forceUnitAccess)
        (base, generation, tail, chain, places) = (other, compacted.generation, compacted.tail, compacted.chain, compacted.places)
    }

    // MARK: Records

    private nonisolated(nonsending) func append(_ record: Record) async throws {
        try record.check()
        if !fits(record) { try await compact() }
        try await write(record, options: .forceUnitAccess)
    }

    private nonisolated(nonsending) func write(_ record: Record, options: WriteOptions) async throws {
        guard fits(record) else { throw LogError.full }
        let buffer = IOBuffer(byteCount: roundedUp(record.byteCount))
        let checksum = record.encode(into: buffer.bytes, chain: chain)
        try await disk.write(buffer, at: tail, options: options)
        note(record, Place(offset: tail, byteCount: record.byteCount, chain: chain))
        tail += UInt64(buffer.byteCount)
        chain = checksum
    }

    private nonisolated(nonsending) func record(at place: Place) async throws -> Record {
        let buffer = IOBuffer(byteCount: roundedUp(place.byteCount))
        try await disk.read(into: buffer, at: place.offset)
        let bytes = UnsafeRawBufferPointer(rebasing: buffer.bytes[..<place.byteCount])
        guard let record = Record(bytes, chain: place.chain) else { throw LogError.damaged(offset: place.offset) }
        return record
    }

    private func note(_ record: Record, _ place: Place) {
        places[record.key] = record.value == nil ? nil : place
    }

    // MARK: Places

    private var end: UInt64 { base + Self.halfByteCount(of: disk) }

    private func fits(_ record: Record) -> Bool { UInt64(roundedUp(record.byteCount)) <= end - tail }

    private func roundedUp(_ byteCount: Int) -> Int {
        (byteCount + disk.blockSize - 1) / disk.blockSize * disk.blockSize
    }

    private static func halfByteCount(of disk: MultipathDisk) -> UInt64 {
        let blocks = disk.capacityByteCount / UInt64(disk.blockSize)
        return blocks / 2 * UInt64(disk.blockSize)
    }
}

enum LogError: Error, CustomStringConvertible {
    case notALog
    case full
    case tooLarge(String, maximum: Int)
    case damaged(offset: UInt64)

    var description: String {
        switch self {
        case .notALog: "there is no log on this disk; 'create' makes one"
        case .full: "the disk has no room for it"
        case .tooLarge(let what, let maximum): "\(what) has more than \(maximum) bytes"
        case .damaged(let offset): "the record at byte \(offset) is not what was written there"
        }
    }
}
