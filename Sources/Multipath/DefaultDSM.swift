public import SCSI
public import Timebase

/// The module for every LUN that no other module claims: the policy chooses, the error table judges.
///
/// Meant to be subclassed: override ``claims(_:transport:)``, and then for instance only ``errorTable``. A module for an
/// array with ALUA is a subclass of ``ALUADSM`` instead: this one respects access states, but knows nothing of preferred
/// groups and asks for no transition.
open class DefaultDSM: DeviceSpecificModule {
    public private(set) var policy: PolicySettings
    @exclusivity(unchecked) private var balance: any LoadBalancePolicy
    /// Read once when the module is made.
    private lazy var errors: ErrorTable = errorTable

    open class func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool { true }

    public required init(policy: PolicySettings) {
        self.policy = policy
        balance = policy.makePolicy()
    }

    open var name: String { "default" }

    /// The rows by which errors are judged; a subclass puts its own before ``ErrorTable/standard``.
    open var errorTable: ErrorTable { .standard }

    open func mismatch(known: DeviceDescription, found: DeviceDescription) -> DeviceMismatch? {
        known.mismatch(with: found)
    }

    open func setPolicy(_ settings: PolicySettings) {
        policy = settings
        balance = settings.makePolicy()
    }

    open func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        balance.candidatesChanged(table, at: now)
    }

    open func selectPath(
        for request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        balance.select(request, from: table, at: now)
    }

    open func explainPath(
        for request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        var copy = balance
        return copy.select(request, from: table, at: now)
    }

    open var nextDeadline: Instant { balance.nextDeadline }

    open func failBack(_ table: CandidateTable, at now: Instant) { balance.failBack(table, at: now) }

    open func grade(of state: AccessState, isPreferred: Bool) -> PathGrade { PathGrade(state) }

    open func wantedTransition(
        _ groups: [GroupAccess], since: Instant, isImplicit: Bool, at now: Instant
    ) -> ExplicitTransition? { nil }

    open var nextTransition: Instant { .distantFuture }

    open func transitionEnded(_ transition: ExplicitTransition, _ outcome: PathOutcome, at now: Instant) {}

    open func disposition(
        of outcome: PathOutcome, for request: RequestDescriptor, on path: PathIndex
    ) -> ErrorDisposition {
        errors.disposition(of: outcome)
    }

    open var verificationCommand: CommandDescriptorBlock { .testUnitReady() }

    /// A path is well when it carries an answer of the unit, even one that refuses (reserved by another
    /// host, standby, in transition); it is not when the unit is missing behind it.
    open func verificationFailure(_ outcome: PathOutcome) -> PathFailure? {
        switch outcome {
        case .good, .short: return nil
        case .returned(_, let reason): return PathFailure(reason)
        case .targetFailure(let code):
            return PathFailure(.verificationFailed, detail: "iSCSI response code \(code)")
        case .status(let status, let sense):
            guard case .failPath(let reason) = errors.disposition(of: outcome).action else { return nil }
            return PathFailure(reason, detail: sense.map { "\($0)" } ?? status.description)
        }
    }

    open func pathAdded(_ path: PathIndex, at now: Instant) {}
    open func pathLost(_ path: PathIndex, failure: PathFailure, at now: Instant) {}
    open func pathRegained(_ path: PathIndex, device: DeviceDescription, at now: Instant) {}
    open func pathRemoved(_ path: PathIndex, at now: Instant) {}
}
