import Foundation
import Multipath
import SCSI
import Timebase

extension DiskEngine {
    /// - Parameter last: how many of the latest decisions and incidents to add.
    func explain(last: Int?) -> ExplanationReport {
        let explanation = lun.explain(at: now)
        var report = ExplanationReport(
            lun: name, policy: explanation.policy.kind.rawValue, next: explanation.path.map { lun.pathName($0) },
            reason: explanation.summary, paths: explanation.paths.map(reason))
        if let last {
            report.decisions = lun.lastDecisions(last).map(record)
            report.incidents = lun.lastIncidents(last).map(record)
        }
        return report
    }

    private func reason(_ path: PathExplanation) -> ExplanationReport.PathReason {
        var shown = ExplanationReport.PathReason(id: path.name, isUsed: path.grade > .unusable, reason: path.words)
        let seconds = (now - path.since) / .seconds(1)
        shown.since = Timestamp.format(Date(timeIntervalSinceNow: -seconds))
        shown.sinceSeconds = seconds
        if case .session(let reference) = paths[path.index.index].transport {
            let nexus = reference.path.nexus()
            let proof = NexusProof(nexus)
            shown.nexus = proof
            shown.nexusSharedWith = nexus.sharedWith
            shown.nexusReason = proof.words(nexus.sharedWith)
        }
        return shown
    }

    private func record(_ decision: Decision) -> ExplanationReport.DecisionRecord {
        ExplanationReport.DecisionRecord(
            secondsAgo: (now - decision.at) / .seconds(1), request: "\(decision.request.kind)",
            lba: decision.request.lba, blocks: Int(decision.request.blockCount), tries: Int(decision.tries),
            path: lun.pathName(decision.path),
            reason: Selection(index: decision.path.rawValue, reason: decision.reason).words)
    }

    private func record(_ incident: Incident) -> ExplanationReport.IncidentRecord {
        let (kind, reason) =
            switch incident.kind {
            case .error(let outcome): ("error", outcome.words)
            case .redriven: ("re-driven", "the path was lost or taken out")
            case .redrivenFromStall: ("re-driven", "the path is stalled")
            }
        return ExplanationReport.IncidentRecord(
            secondsAgo: (now - incident.at) / .seconds(1), request: "\(incident.request.kind)", lba: incident.request.lba,
            blocks: Int(incident.request.blockCount), tries: Int(incident.tries), path: lun.pathName(incident.path), kind: kind,
            reason: reason)
    }
}

extension PathOutcome {
    /// How an attempt ended, for people.
    var words: String {
        switch self {
        case .good: "done"
        case .status(let status, let sense): sense.map { "\($0)" } ?? "\(status)"
        case .targetFailure(let code): "iSCSI response code \(code)"
        case .short(let count): "cut short after \(count) bytes"
        case .returned(let wasSent, let reason): PathFailure(reason).description + (wasSent ? "" : ", before it was sent")
        }
    }
}

extension NexusProof {
    /// What the stale-write guard can count on.
    func words(_ others: [String]) -> String {
        switch self {
        case .unproven: "not yet tried whether logging in again ends old writes; its own portal is believed to"
        case .shared: "logging in again ends old writes, also through \(others.joined(separator: ", "))"
        case .single: "logging in again ends old writes, through its own portal only"
        case .notReinstated: "logging in again does not end old writes: after a loss they are waited for"
        }
    }
}
