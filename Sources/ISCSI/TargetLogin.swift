/// One connection's login, as the target (RFC 7143 section 6.3).
public struct TargetLogin {
    /// `statSN` numbers the first response.
    public init(cryptography: any CryptographicServices, statSN: UInt32 = 1) {}

    /// A PDU came; `data` is its whole data segment.
    public mutating func received(_ header: BasicHeaderSegment, data: UnsafeRawBufferPointer) -> TargetLoginAction {
        preconditionFailure("not written yet")
    }

    /// The answer to `.identify`.
    public mutating func identified(_ decision: TargetLoginDecision) -> TargetLoginAction {
        preconditionFailure("not written yet")
    }

    /// The answer to `.establish`.
    public mutating func established(_ admission: TargetLoginAdmission) -> TargetLoginAction {
        preconditionFailure("not written yet")
    }
}
