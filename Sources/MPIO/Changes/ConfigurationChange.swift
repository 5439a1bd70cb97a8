/// One difference between what a process is configured to do and what it is to do.
public struct ConfigurationChange: Codable, Hashable, Sendable, CustomStringConvertible {
    /// When a change takes effect.
    public enum Effect: String, Codable, Hashable, Sendable {
        /// From the next request on.
        case now
        /// When the session is made anew.
        case nextLogin = "next-login"
        /// It stays as it is; ``note`` says why.
        case left
    }

    /// What it is about; a LUN, one of its paths, or a target.
    public var lun: String?
    /// The path's name; nil where it is about the LUN or a target.
    public var path: String?
    /// The target's name; nil where it is about a LUN or a path.
    public var target: String?
    /// As the policy file has it: `policy`, `timers.silence-timeout`, `weight`; or `lun`, `path`, `portal`, `target` for a whole one.
    public var key: String
    /// Nil: there was none.
    public var old: String?
    /// Nil: it goes.
    public var new: String?
    /// When it takes effect.
    public var effect: Effect
    /// What else is to be known, in words; with ``Effect/left`` the reason.
    public var note: String?

    enum CodingKeys: String, CodingKey {
        case lun, path, target, key, effect, note
        case old = "from"
        case new = "to"
    }

    init(
        lun: String? = nil, path: String? = nil, target: String? = nil, key: String, old: String?, new: String?,
        effect: Effect = .now, note: String? = nil
    ) {
        self.lun = lun
        self.path = path
        self.target = target
        self.key = key
        self.old = old
        self.new = new
        self.effect = effect
        self.note = note
    }

    /// One line for people.
    public var description: String {
        let subject = [target, lun, path].compactMap { $0 }.joined(separator: " ")
        var text = subject.isEmpty ? "" : subject + ": "
        switch (old, new) {
        case (let old?, let new?): text += old == new ? "\(key) changes" : "\(key) \(old) → \(new)"
        case (nil, let new?): text += "\(key) \(new) is added"
        case (let old?, nil): text += "\(key) \(old) is removed"
        case (nil, nil): text += key
        }
        switch effect {
        case .now: break
        case .nextLogin: text += " (with the session's next login)"
        case .left: text += " (left as it is)"
        }
        if let note { text += "; \(note)" }
        return text
    }
}
