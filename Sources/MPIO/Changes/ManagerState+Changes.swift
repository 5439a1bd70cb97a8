import Foundation
import Multipath
import SCSI

/// A policy file as it was read, to be taken over.
struct LoadedPolicy: Sendable {
    var configuration: Configuration
    var file: String
    var fingerprint: String

    /// Reads a file, on any thread but the reactor's. Throws ``ControlFailure`` with all its mistakes.
    init(contentsOf file: String) throws(ControlFailure) {
        self.file = file
        do {
            // Once: what was hashed is what is taken over.
            let bytes = try Configuration.readFile(file)
            configuration = try Configuration(bytes: bytes, of: file)
            fingerprint = String(StableHash.of(String(decoding: bytes, as: UTF8.self)), radix: 16)
        } catch let invalid as InvalidConfiguration {
            throw ControlFailure(
                .badPolicyFile, "the policy file \(file) has mistakes; nothing was changed", mistakes: invalid.errors.map(\.description))
        } catch let error as ConfigurationFileError {
            throw ControlFailure(.badPolicyFile, "\(error); nothing was changed")
        } catch {
            throw ControlFailure(.badPolicyFile, "\(file): \(error.localizedDescription); nothing was changed")
        }
    }
}

// The configuration changes while I/O runs. Everything that can be wrong is found before anything is done, and what is
// done is done in one step of each reactor.

extension ManagerState {
    typealias ChangesResult = Result<ChangesReport, ControlFailure>

    /// - Parameter report: called once, on the home's thread.
    func reload(
        _ policy: LoadedPolicy, expecting: String?, isDryRun: Bool, by actor: ChangeActor?,
        report: @escaping (ChangesResult) -> Void
    ) {
        if let expecting, expecting != policy.fingerprint {
            return report(.failure(ControlFailure(.invalid, "the policy file \(policy.file) was changed meanwhile; nothing was changed")))
        }
        change(isDryRun: isDryRun, by: actor) { _ in policy.configuration } report: { result in
            report(
                result.map { ChangesReport(file: policy.file, fingerprint: policy.fingerprint, isApplied: !isDryRun, changes: $0) })
        }
    }

    func edit(_ edit: ConfigurationEdit, by actor: ChangeActor?, report: @escaping (ChangesResult) -> Void) {
        guard shards(of: edit.lun) != nil else {
            return report(.failure(ControlFailure(.noSuchLUN, "this process does not hold '\(edit.lun)'")))
        }
        change(isDryRun: false, by: actor) { current throws(ControlFailure) in
            var wanted = current
            try wanted.apply(edit)
            return wanted
        } report: { result in
            report(result.map { ChangesReport(isApplied: true, changes: $0) })
        }
    }

    /// What is configured, with the policies that disks were given otherwise.
    private func currentState(_ disks: [DiskState]) -> Configuration {
        var current = configuration
        for disk in disks {
            guard let index = current.luns.firstIndex(where: { $0.name == disk.name }) else { continue }
            current.luns[index].settings = disk.settings
        }
        return current
    }

    /// Reports what was, or would be, changed, and what is left.
    private func change(
        isDryRun: Bool, by actor: ChangeActor?, to wanted: @escaping (Configuration) throws(ControlFailure) -> Configuration,
        report: @escaping (Result<[ConfigurationChange], ControlFailure>) -> Void
    ) {
        change { [self] over in
            gather { shard in shard.disks.map { DiskState(name: $0.name, settings: $0.lun.settings) } } then: { [self] (disks: [[DiskState]]) in
                let current = currentState(disks.flatMap { $0 })
                let new: Configuration
                let changes: [ConfigurationChange]
                do throws(ControlFailure) {
                    (new, changes) = possible(try wanted(current), current)
                    try checkRoom(for: new)
                } catch {
                    report(.failure(error))
                    return over()
                }
                guard !isDryRun else {
                    report(.success(changes))
                    return over()
                }
                adopt(new)
                for change in changes where change.effect != .left { log(change, actor) }
                gather { shard in shard.carryOut(changes, from: current, to: new, by: actor) } then: { (_: [Void]) in
                    report(.success(changes))
                    over()
                }
            }
        }
    }

    private func checkRoom(for new: Configuration) throws(ControlFailure) {
        if let objection = room.objection(to: new) { throw ControlFailure(.invalid, objection) }
    }

    /// `wanted` without what can't be done while I/O runs, and what it changes.
    private func possible(_ wanted: Configuration, _ current: Configuration) -> (Configuration, [ConfigurationChange]) {
        var new = wanted
        var changes = current.differences(to: wanted)
        new.initiatorName = current.initiatorName
        new.busyPoll = current.busyPoll
        new.reactors = current.reactors
        for index in changes.indices {
            guard let name = changes[index].lun, let old = current.lun(named: name), shards(of: name) != nil
            else { continue }
            switch changes[index].key {
            case "lun" where changes[index].new == nil && isUsed(name):
                changes[index].effect = .left
                changes[index].note = "this process uses it (\(command))"
                new.keep(old, of: current)
            case "identity":
                changes[index].effect = .left
                changes[index].note = "an open LUN stays what it is"
                if let place = new.luns.firstIndex(where: { $0.name == name }) { new.luns[place].keepIdentification(of: old) }
            case "reactors":
                changes[index].effect = .left
                changes[index].note = "an open LUN stays on its reactors; it takes a restart"
                if let place = new.luns.firstIndex(where: { $0.name == name }) { new.luns[place].reactors = old.reactors }
            default: break
            }
        }
        return (new, changes)
    }

    /// What no disk tells of by itself.
    private func log(_ change: ConfigurationChange, _ actor: ChangeActor?) {
        let kind: String
        switch (change.key, change.lun) {
        case ("lun", _?): kind = change.new == nil ? "lun-removed" : "lun-added"
        case (_, nil) where change.key == "portal": kind = change.new == nil ? "portal-removed" : "portal-added"
        case (_, nil): kind = "target-changed"
        default: return
        }
        self.log.append(lun: change.lun ?? "", path: change.path, kind: kind, message: change.description, by: actor)
    }
}

extension LUNConfiguration {
    /// Its paths lead to the number that the identity gives, wherever they are listed.
    fileprivate mutating func keepIdentification(of old: LUNConfiguration) {
        defer { identification = old.identification }
        guard case .location(_, let wrong) = identification else { return }
        var number: LogicalUnitNumber?
        if case .location(_, let right) = old.identification { number = right }
        for index in paths.indices {
            guard case .portal(let target, let portal, wrong) = paths[index].transport else { continue }
            paths[index].transport = .portal(target: target, portal: portal, lun: number)
        }
    }
}

/// What a disk is set to now.
private struct DiskState: Sendable {
    var name: String
    var settings: LUNSettings
}

extension ManagerShard {
    /// Takes over a new configuration, on this shard's thread, in one step. `current` is what it was when `changes` were found.
    func carryOut(_ changes: [ConfigurationChange], from current: Configuration, to new: Configuration, by actor: ChangeActor?) {
        host.actor = actor
        defer { host.actor = nil }
        adopt(new)
        for disk in disks {
            guard let lun = new.lun(named: disk.name), let old = current.lun(named: disk.name) else {
                giveUp(disk)
                continue
            }
            // What stays as it was may have been changed otherwise meanwhile.
            if lun.settings != old.settings { disk.update(lun.settings) }
            changePaths(of: disk, from: current.effectivePaths(of: old).map { current.place(of: $0.transport) }, to: lun)
            disk.performActions()
        }
        changeSessions(changes)
        host.runDirtyDisks()
    }

    private func changePaths(of disk: DiskEngine, from old: [PathPlace], to lun: LUNConfiguration) {
        let paths = configuration.effectivePaths(of: lun)
        let wanted = Set(paths.map { configuration.place(of: $0.transport) })
        for place in old where !wanted.contains(place) {
            if let index = places[disk.name]?.removeValue(forKey: place) { disk.remove(index, at: place) }
        }
        for path in paths {
            let place = configuration.place(of: path.transport)
            if let kept = disk.keep(place) { places[disk.name, default: [:]][place] = kept }
            if let index = places[disk.name]?[place], disk.isPresent(index) || lun.paths.isEmpty {
                disk.update(index, path.settings)
            } else {
                add(path, to: disk, lun: lun)
            }
        }
    }

    /// Sessions that are used get the timers of the first LUN that uses them, and what else is new.
    private func changeSessions(_ changes: [ConfigurationChange]) {
        var seen: Set<SessionPool.Key> = []
        let changed = Set(changes.compactMap(\.target).map { $0.lowercased() })
        for disk in disks {
            for (place, index) in (places[disk.name] ?? [:]).sorted(by: { $0.value.index < $1.value.index }) {
                guard case .session(let session, _) = place, let key = sessions.key(session), let path = sessions.session(key),
                    seen.insert(key).inserted
                else { continue }
                let old = path.settings.connectionPolicy
                let wanted = sessions.settings(key, disk.lun.settings.timers)
                guard changed.contains(session.target) || wanted.timers != path.settings.timers else { continue }
                path.adopt(wanted)
                if old != path.settings.connectionPolicy, path.group != nil {
                    disk.report(.connectionPolicyChanged(index, from: old, to: path.settings.connectionPolicy))
                }
            }
        }
    }
}
