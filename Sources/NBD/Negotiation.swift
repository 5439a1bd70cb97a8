/// The options that a client sends before it uses an export, and their answers (the specification, "Fixed newstyle
/// negotiation"). Bytes go in and come out; it keeps no more than what was agreed on.
struct Negotiation {
    /// What can be chosen, and listed.
    var exports: [Export]
    /// What an empty name means: an index, or nil where that would be a guess.
    var defaultExport: Int?
    private let security: TransportSecurity
    private(set) var isEncrypted = false
    private(set) var flags: HandshakeFlags = []
    private(set) var usesStructuredReplies = false

    enum Outcome {
        case reply([UInt8])
        case transmit(Export, reply: [UInt8])
        /// After the reply the client speaks TLS.
        case startTLS(reply: [UInt8])
        /// The connection ends once the reply is sent.
        case end(SessionEnd, reply: [UInt8])
    }

    init(exports: [Export], defaultExport: Int?, security: TransportSecurity) {
        self.exports = exports
        self.defaultExport = defaultExport
        self.security = security
    }

    /// Nothing holds any more that was agreed on in the clear: somebody else may have said it.
    mutating func encrypted() {
        isEncrypted = true
        usesStructuredReplies = false
    }

    private var needsTLS: Bool { security == .required && !isEncrypted }

    /// What the server says first: 18 bytes.
    static var greeting: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(wire: Magic.server)
        bytes.append(wire: Magic.option)
        bytes.append(wire: UInt16(truncatingIfNeeded: HandshakeFlags.known.rawValue))
        return bytes
    }

    /// False where a flag is set that was not offered: such a client is to be dropped.
    mutating func received(_ flags: HandshakeFlags) -> Bool {
        self.flags = flags
        return HandshakeFlags.known.isSuperset(of: flags)
    }

    mutating func received(_ option: OptionCode, data: [UInt8]) -> Outcome {
        guard flags.contains(.fixedNewstyle) || option == .exportName else {
            return .end(.violation(.optionWithoutFixedNewstyle), reply: [])
        }
        if needsTLS, option != .startTLS, option != .abort {
            return option == .exportName ? .end(.violation(.exportNameWithoutTLS), reply: []) : refuseWithoutTLS(option)
        }
        switch option {
        case .exportName: return chooseByName(data)
        case .abort: return .end(.aborted, reply: Self.reply(to: option, .acknowledge))
        case .list: return list(data)
        case .info, .go: return inform(option, data)
        case .structuredReply: return agreeOnStructuredReplies(data)
        case .listMetaContext, .setMetaContext: return metaContexts(option, data)
        case .startTLS where !data.isEmpty: return invalid(option, "STARTTLS carries no data")
        case .startTLS where isEncrypted: return invalid(option, "TLS is there already")
        case .startTLS where security == .none: return .reply(Self.reply(to: option, .unsupported, text: "this server has no TLS"))
        case .startTLS: return .startTLS(reply: Self.reply(to: option, .acknowledge))
        default: return .reply(Self.reply(to: option, .unsupported, text: "this server does not know the option"))
        }
    }

    /// For an option whose data was skipped.
    func refuseTooBig(_ option: OptionCode) -> Outcome {
        guard flags.contains(.fixedNewstyle), option != .exportName else {
            return .end(.violation(.optionTooBig), reply: [])
        }
        if needsTLS, option != .startTLS, option != .abort { return refuseWithoutTLS(option) }
        return .reply(Self.reply(to: option, .tooBig, text: "the option's data is too long"))
    }

    private func refuseWithoutTLS(_ option: OptionCode) -> Outcome {
        .reply(Self.reply(to: option, .tlsRequired, text: "this server wants TLS first"))
    }

    // MARK: options

    private func chooseByName(_ data: [UInt8]) -> Outcome {
        // There is no way to say no to this option, but to hang up.
        guard let export = export(named: data[...]) else { return .end(.unknownExport, reply: []) }
        var reply: [UInt8] = []
        reply.append(wire: export.byteCount)
        reply.append(wire: export.transmissionFlags(structuredReplies: usesStructuredReplies).rawValue)
        if !flags.contains(.noZeroes) { reply += [UInt8](repeating: 0, count: 124) }
        return .transmit(export, reply: reply)
    }

    private func list(_ data: [UInt8]) -> Outcome {
        guard data.isEmpty else { return invalid(.list, "LIST carries no data") }
        var reply: [UInt8] = []
        for export in exports {
            var entry: [UInt8] = []
            let name = Array(export.name.utf8)
            entry.append(wire: UInt32(name.count))
            entry += name + Array(export.description.utf8)
            reply += Self.reply(to: .list, .server, entry)
        }
        return .reply(reply + Self.reply(to: .list, .acknowledge))
    }

    private func inform(_ option: OptionCode, _ data: [UInt8]) -> Outcome {
        var reader = OptionReader(data)
        guard let name = reader.string(), let count = reader.number(UInt16.self),
            let requests = reader.bytes(2 * Int(count)), reader.isAtEnd
        else { return invalid(option, "the option's data does not add up") }
        guard let export = export(named: name) else {
            return .reply(Self.reply(to: option, .unknownExport, text: unknownExportWords(isEmpty: name.isEmpty)))
        }
        let wanted = Set(stride(from: requests.startIndex, to: requests.endIndex, by: 2).compactMap {
            InfoCode(rawValue: UInt16(requests[$0]) << 8 | UInt16(requests[$0 + 1]))
        })
        let blockSize = Self.reply(to: option, .info, blockSizeInfo(export))
        // 512 is what clients assume that were told nothing; more they have to be told.
        if option == .go, export.minimumBlockByteCount > 512, !wanted.contains(.blockSize) {
            return .reply(blockSize + Self.reply(
                to: option, .blockSizeRequired, text: "the export has blocks of \(export.minimumBlockByteCount) bytes"))
        }
        var reply = Self.reply(to: option, .info, exportInfo(export))
        if wanted.contains(.name) { reply += Self.reply(to: option, .info, Self.textInfo(.name, export.name)) }
        if wanted.contains(.description), !export.description.isEmpty {
            reply += Self.reply(to: option, .info, Self.textInfo(.description, export.description))
        }
        reply += blockSize + Self.reply(to: option, .acknowledge)
        return option == .go ? .transmit(export, reply: reply) : .reply(reply)
    }

    private mutating func agreeOnStructuredReplies(_ data: [UInt8]) -> Outcome {
        guard data.isEmpty else { return invalid(.structuredReply, "STRUCTURED_REPLY carries no data") }
        usesStructuredReplies = true
        return .reply(Self.reply(to: .structuredReply, .acknowledge))
    }

    /// There are none: which blocks are holes the disk does not tell. The data must be right nevertheless.
    private func metaContexts(_ option: OptionCode, _ data: [UInt8]) -> Outcome {
        guard usesStructuredReplies else { return invalid(option, "metadata contexts need structured replies") }
        var reader = OptionReader(data)
        guard let name = reader.string(), let count = reader.number(UInt32.self) else {
            return invalid(option, "the option's data does not add up")
        }
        // Each takes four bytes at least, so the loop ends with the data.
        for _ in 0..<count {
            guard reader.string() != nil else { return invalid(option, "a query reaches past the option's data") }
        }
        guard reader.isAtEnd else { return invalid(option, "the option's data does not add up") }
        guard export(named: name) != nil else {
            return .reply(Self.reply(to: option, .unknownExport, text: unknownExportWords(isEmpty: name.isEmpty)))
        }
        return .reply(Self.reply(to: option, .acknowledge))
    }

    // MARK: pieces

    private func export(named name: ArraySlice<UInt8>) -> Export? {
        if name.isEmpty { return defaultExport.map { exports[$0] } }
        return exports.first { $0.name.utf8.elementsEqual(name) }
    }

    private func unknownExportWords(isEmpty: Bool) -> String {
        if exports.isEmpty { return "no disk is ready yet; try again" }
        return isEmpty ? "there are several disks: name one" : "there is no disk of this name, or it is not ready yet"
    }

    private func invalid(_ option: OptionCode, _ words: String) -> Outcome {
        .reply(Self.reply(to: option, .invalid, text: words))
    }

    private func exportInfo(_ export: Export) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(wire: InfoCode.export.rawValue)
        bytes.append(wire: export.byteCount)
        bytes.append(wire: export.transmissionFlags(structuredReplies: usesStructuredReplies).rawValue)
        return bytes
    }

    private func blockSizeInfo(_ export: Export) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(wire: InfoCode.blockSize.rawValue)
        bytes.append(wire: export.minimumBlockByteCount)
        bytes.append(wire: export.preferredBlockByteCount)
        bytes.append(wire: export.maximumPayloadByteCount)
        return bytes
    }

    private static func textInfo(_ code: InfoCode, _ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(wire: code.rawValue)
        return bytes + Array(text.utf8)
    }

    private static func reply(to option: OptionCode, _ code: OptionReplyCode, text: String) -> [UInt8] {
        reply(to: option, code, Array(text.utf8))
    }

    private static func reply(to option: OptionCode, _ code: OptionReplyCode, _ data: [UInt8] = []) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(20 + data.count)
        bytes.append(wire: Magic.optionReply)
        bytes.append(wire: option.rawValue)
        bytes.append(wire: code.rawValue)
        bytes.append(wire: UInt32(data.count))
        return bytes + data
    }
}
