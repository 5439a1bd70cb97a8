/// Reads decisions off the front of an input; zeros where it has ended, so that each prefix is a script too.
struct ByteScript {
    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func byte() -> UInt8 {
        guard let first = rest.first else { return 0 }
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst())
        return first
    }

    mutating func word16() -> UInt16 { UInt16(byte()) << 8 | UInt16(byte()) }
    mutating func word32() -> UInt32 { UInt32(word16()) << 16 | UInt32(word16()) }
    mutating func word64() -> UInt64 { UInt64(word32()) << 32 | UInt64(word32()) }
    mutating func flag() -> Bool { byte() & 1 != 0 }
    /// 0..<`count`
    mutating func below(_ count: Int) -> Int { Int(byte()) % count }
    mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }

    /// Up to `count` bytes.
    mutating func bytes(_ count: Int) -> [UInt8] {
        let taken = Array(rest.prefix(count))
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(taken.count))
        return taken
    }

    /// A piece whose length stands before it, in two bytes.
    mutating func piece(limit: Int = 4096) -> [UInt8] { bytes(min(Int(word16()), limit)) }
}

/// Writes what ``ByteScript`` reads.
struct ScriptWriter {
    var bytes: [UInt8] = []

    init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    mutating func add(_ values: UInt8...) { bytes += values }
    mutating func piece(_ piece: [UInt8]) {
        bytes += [UInt8(truncatingIfNeeded: piece.count >> 8), UInt8(truncatingIfNeeded: piece.count)] + piece
    }
}

/// Ends the run as a finding. Not `precondition`, so that the broken promise shows in the log.
func broken(_ promise: @autoclosure () -> String) -> Never { fatalError("broken promise: \(promise())") }

@inline(__always)
func require(_ condition: Bool, _ promise: @autoclosure () -> String) {
    if !condition { broken(promise()) }
}
