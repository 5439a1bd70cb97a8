/// Serial number arithmetic on 32 bits (RFC 1982, as RFC 7143 section 4.2.2.1 asks for CmdSN, StatSN
/// and DataSN). Two numbers exactly 2³¹ apart are ordered neither way.
public enum SerialNumber {
    /// Whether `a` comes before `b`.
    @inlinable
    public static func isBefore(_ a: UInt32, _ b: UInt32) -> Bool {
        let distance = b &- a
        return distance != 0 && distance < 0x8000_0000
    }

    /// Whether `a` comes before `b` or is it.
    @inlinable
    public static func isAtMost(_ a: UInt32, _ b: UInt32) -> Bool {
        b &- a < 0x8000_0000
    }

    /// Steps from `a` forward to `b`, negative where `b` lies behind.
    @inlinable
    public static func distance(from a: UInt32, to b: UInt32) -> Int32 {
        Int32(bitPattern: b &- a)
    }
}
