/// A mistake made on purpose, to show that the simulator's oracles would find it.
///
/// Only the recovery of a lost connection looks at ``InitiatorSession/plantedMistake``, and nothing but a simulation
/// sets it.
package enum PlantedConnectionMistake: Hashable, Sendable {
    /// Tasks are reassigned though the lost connection was not logged out.
    case reassignsWithoutLogout
    /// A CmdSN that the target did not get is not filled.
    case leavesGap
    /// A reassigned write sends its data on another connection than the one that it belongs to now.
    case sendsDataElsewhere
    /// Recovery confirms a status that did not come.
    case confirmsStatusEarly
    /// Commands go back to the owner before the target has ended the lost connection.
    case handsBackEarly
}
