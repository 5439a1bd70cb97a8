public import SCSI

/// Which outcomes a row of the error table is about.
public enum ErrorPattern: Hashable, Sendable {
    /// A status other than GOOD and CHECK CONDITION.
    case status(SCSIStatus)
    /// CHECK CONDITION without usable sense data.
    case noSenseData
    /// Sense data that belongs to an earlier command.
    case deferred
    /// CHECK CONDITION; nil matches every value of that field.
    case sense(SenseKey, code: UInt8?, qualifier: UInt8?)
    /// An iSCSI response code; nil matches all.
    case targetFailure(UInt8?)
    /// GOOD, but not all the data.
    case short
    /// The path gave the command back; nil matches every reason.
    case returned(PathFailureReason?)
    /// Everything.
    case any

    func matches(_ outcome: PathOutcome) -> Bool {
        switch (self, outcome) {
        case (.any, _): true
        case (.status(let wanted), .status(let status, _)): wanted == status
        case (.noSenseData, .status(.checkCondition, nil)): true
        case (.deferred, .status(.checkCondition, let sense?)): sense.isDeferred
        case (.sense(let key, let code, let qualifier), .status(.checkCondition, let sense?)):
            !sense.isDeferred && sense.key == key && (code ?? sense.additional.code) == sense.additional.code
                && (qualifier ?? sense.additional.qualifier) == sense.additional.qualifier
        case (.targetFailure(let wanted), .targetFailure(let code)): (wanted ?? code) == code
        case (.short, .short): true
        case (.returned(let wanted), .returned(_, let reason)): (wanted ?? reason) == reason
        default: false
        }
    }
}

/// One row: which outcomes, what they mean, and why.
public struct ErrorRow: Hashable, Sendable {
    /// Which outcomes it is about.
    public var pattern: ErrorPattern
    /// What they mean.
    public var disposition: ErrorDisposition
    /// What the condition is called.
    public var name: String
    /// Why we do this; where Linux and Windows differ, why we side with either or neither.
    public var why: String

    /// A row; `name` and `why` are for the reader of `docs/failover.md` and of `mpio explain`.
    public init(_ pattern: ErrorPattern, _ disposition: ErrorDisposition, name: String, why: String) {
        self.pattern = pattern
        self.disposition = disposition
        self.name = name
        self.why = why
    }
}

/// What each error means: rows, the first that matches counts. A module for a vendor's array puts its own
/// rows before ``standard``.
public struct ErrorTable: Sendable {
    /// The rows, in the order in which they are looked at.
    public private(set) var rows: [ErrorRow]

    /// A table of these rows alone. What none of them matches surfaces.
    public init(rows: [ErrorRow]) { self.rows = rows }

    /// This table with rows that are looked at first.
    public func preceded(by own: [ErrorRow]) -> ErrorTable { ErrorTable(rows: own + rows) }

    /// The row for an outcome; nil where none matches (``standard`` has one for each).
    public func row(for outcome: PathOutcome) -> ErrorRow? {
        rows.first { $0.pattern.matches(outcome) }
    }

    /// What the first row that matches says.
    public func disposition(of outcome: PathOutcome) -> ErrorDisposition {
        if case .good = outcome { return ErrorDisposition(.complete) }
        return row(for: outcome)?.disposition ?? ErrorDisposition(.surface, mayHaveRun: true)
    }

    /// The table of the default device-specific module.
    public static let standard = ErrorTable(
        rows: statusRows + notReadyRows + unitAttentionRows + mediumAndHardwareRows + illegalRequestRows
            + abortedCommandRows + otherSenseRows + transportRows)
}
