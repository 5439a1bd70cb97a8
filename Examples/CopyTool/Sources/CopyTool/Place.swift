import MPIO

/// A name on the command line.
enum Place: Equatable {
    case disk(String)
    case file(String)

    init(_ name: String) {
        self = name.contains("/") ? .file(name) : .disk(name)
    }

    func openForReading(_ manager: PathManager) async throws -> any BlockStore {
        switch self {
        case .disk(let name): try await manager.open(name)
        case .file(let path): try File(reading: path)
        }
    }

    func openForWriting(_ manager: PathManager, byteCount: UInt64) async throws -> any BlockStore {
        switch self {
        case .disk(let name): try await manager.open(name)
        case .file(let path): try File(writing: path, byteCount: byteCount)
        }
    }
}

/// What blocks come from and go to.
protocol BlockStore: Sendable {
    var byteCount: UInt64 { get }
    /// In bytes; offsets and counts are multiples of it.
    var blockSize: Int { get }
    /// Fills a part of the buffer with what is at `offset`.
    func load(_ part: Range<Int>, of buffer: IOBuffer, from offset: UInt64) async throws
    /// Puts a part of the buffer to `offset`.
    func store(_ part: Range<Int>, of buffer: IOBuffer, to offset: UInt64) async throws
    /// What was stored is on stable storage when it returns.
    func sync() async throws
}

extension MultipathDisk: BlockStore {
    var byteCount: UInt64 { capacityByteCount }

    func load(_ part: Range<Int>, of buffer: IOBuffer, from offset: UInt64) async throws {
        try await read(into: buffer, range: part, at: offset)
    }

    func store(_ part: Range<Int>, of buffer: IOBuffer, to offset: UInt64) async throws {
        try await write(buffer, range: part, at: offset)
    }

    func sync() async throws { try await flush() }
}
