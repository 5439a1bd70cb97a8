public import SCSI
public import Timebase

/// The module for units with asymmetric access (ALUA): as the default one, but it follows the array's preferred
/// groups, and makes a group active where the array leaves that to the initiators and no path carries data.
///
/// Claims what no registered module does and whose INQUIRY data has a TPGS other than 0. A vendor's module for such an
/// array is best a subclass of it.
open class ALUADSM: DefaultDSM {
    private var transitions = ExplicitTransitions()

    override open class func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool {
        !device.targetPortGroupSupport.isEmpty
    }

    override open var name: String { "alua" }

    /// Among optimized groups those with the PREF bit carry all (SPC-4 clause 5.15.2.1 leaves its use to the initiator).
    /// A preferred group that is not optimized gains nothing by it: it is the array that says when to go there.
    override open func grade(of state: AccessState, isPreferred: Bool) -> PathGrade {
        let grade = super.grade(of: state, isPreferred: isPreferred)
        return grade == .optimized && isPreferred ? .preferred : grade
    }

    /// By ``ExplicitTransitions``.
    override open func wantedTransition(
        _ groups: [GroupAccess], since: Instant, isImplicit: Bool, at now: Instant
    ) -> ExplicitTransition? {
        transitions.wanted(groups, since: since, isImplicit: isImplicit, at: now)
    }

    /// When a refused transition may be asked for again.
    override open var nextTransition: Instant { transitions.nextTry }

    /// A refusal, or none in time, is waited out; see ``ExplicitTransitions``.
    override open func transitionEnded(_ transition: ExplicitTransition, _ outcome: PathOutcome, at now: Instant) {
        transitions.ended(transition, outcome)
    }
}
