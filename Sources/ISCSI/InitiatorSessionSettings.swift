/// What an ``InitiatorSession`` is made from.
public struct SessionSettings: Sendable {
    /// Names, ISID, credentials and what is asked for in the negotiation. Connection ID and TSIH are
    /// filled in by the session for the connections after the first.
    public var login: LoginSettings
    /// From the open transport to full-feature phase; also for the answer to a logout.
    public var loginTimeout: Duration = .seconds(5)
    /// How long a stalled session is waited for, and when a command counts as overdue. Zero: for ever, and never.
    public var commandTimeout: Duration = .seconds(60)
    /// Something owed and no byte for so long: the connection is judged. A NOP-Out goes out halfway.
    public var silenceTimeout: Duration = .seconds(2)
    /// An idle connection is asked by NOP-Out this often.
    public var verifyPeriod: Duration = .seconds(30)
    /// How long the tasks of a lost connection are held, at most, until a transport for its recovery is
    /// there; after it another connection logs it out, or the session fails.
    public var connectionRecoveryTimeout: Duration = .seconds(1)
    /// Commands outstanding at most, 1…32,768; bounds the session's memory.
    public var commandCapacity = 1024

    public init(login: LoginSettings) {
        self.login = login
    }
}
