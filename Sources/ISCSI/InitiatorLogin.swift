/// One connection's login, as the initiator (RFC 7143 section 6.3).
public struct InitiatorLogin {
    public init(settings: LoginSettings, cryptography: any CryptographicServices) {}

    /// The first Login Request. To be called once, when the connection is open.
    public mutating func start() -> LoginAction { preconditionFailure("not written yet") }

    /// A PDU came; `data` is its whole data segment.
    public mutating func received(_ header: BasicHeaderSegment, data: UnsafeRawBufferPointer) -> LoginAction {
        preconditionFailure("not written yet")
    }
}
