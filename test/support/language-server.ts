import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { fileURLToPath, pathToFileURL } from 'node:url'

const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url))

export interface Position {
  readonly line: number
  readonly character: number
}

interface Range {
  readonly start: Position
  readonly end: Position
}

/** What of a range in a file an answer means. */
export interface Place {
  readonly file: string
  readonly range: Range
}

interface Message {
  readonly id?: number | string
  readonly method?: string
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

interface Waiting {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Error) => void
}

interface CompletionAnswer {
  readonly items: readonly { readonly label: string }[]
}

interface HoverAnswer {
  readonly contents: { readonly value: string }
}

interface RenameAnswer {
  readonly changes?: Readonly<Record<string, readonly { readonly range: Range }[]>>
  readonly documentChanges?: readonly {
    readonly textDocument: { readonly uri: string }
    readonly edits: readonly { readonly range: Range }[]
  }[]
}

/** The compiler as an editor talks to it: the Language Server Protocol over its standard streams. */
export interface LanguageServer {
  readonly open: (file: string, text: string) => void
  /** The labels offered at a place. */
  readonly complete: (file: string, position: Position) => Promise<string[]>
  /** What is shown at a place, as Markdown. */
  readonly hover: (file: string, position: Position) => Promise<string>
  readonly references: (file: string, position: Position) => Promise<Place[]>
  /** What a rename would change. */
  readonly rename: (file: string, position: Position, newName: string) => Promise<Place[]>
  readonly end: () => Promise<void>
}

/** Starts the language server of the installed compiler. Undefined where it has none that answers within 10 seconds. */
export async function startLanguageServer(folder: string): Promise<LanguageServer | undefined> {
  const child = spawn(process.execPath, [tsc, '--lsp', '--stdio'], { cwd: folder })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const request = connect(child, ended)
  const rootUri = pathToFileURL(folder).href
  const answered = await Promise.race([
    request('initialize', {
      processId: process.pid,
      rootUri,
      workspaceFolders: [{ uri: rootUri, name: 'fixture' }],
      capabilities: {
        textDocument: { hover: { contentFormat: ['markdown'] }, rename: { prepareSupport: true } },
      },
    }).then(
      () => true,
      () => false,
    ),
    new Promise<boolean>((resolve) => setTimeout(resolve, 10_000, false).unref()),
  ])
  if (!answered) {
    child.kill('SIGKILL')
    return undefined
  }
  notify(child, 'initialized', {})

  const at = (file: string, position: Position) => ({
    textDocument: { uri: pathToFileURL(file).href },
    position,
  })
  return {
    open: (file, text) =>
      notify(child, 'textDocument/didOpen', {
        textDocument: { uri: pathToFileURL(file).href, languageId: 'typescript', version: 1, text },
      }),
    async complete(file, position) {
      const answer = await request<CompletionAnswer | CompletionAnswer['items'] | null>(
        'textDocument/completion',
        at(file, position),
      )
      return (answer === null ? [] : 'items' in answer ? answer.items : answer).map(({ label }) => label)
    },
    async hover(file, position) {
      const answer = await request<HoverAnswer | null>('textDocument/hover', at(file, position))
      return answer?.contents.value ?? ''
    },
    async references(file, position) {
      const context = { includeDeclaration: true }
      const answer = await request<readonly { readonly uri: string; readonly range: Range }[] | null>(
        'textDocument/references',
        { ...at(file, position), context },
      )
      return (answer ?? []).map(({ uri, range }) => ({ file: fileURLToPath(uri), range }))
    },
    async rename(file, position, newName) {
      const answer = await request<RenameAnswer | null>('textDocument/rename', {
        ...at(file, position),
        newName,
      })
      const edits = [
        ...Object.entries(answer?.changes ?? {}),
        ...(answer?.documentChanges ?? []).map(
          ({ textDocument, edits }) => [textDocument.uri, edits] as const,
        ),
      ]
      return edits.flatMap(([uri, changes]) =>
        changes.map(({ range }) => ({ file: fileURLToPath(uri), range })),
      )
    },
    async end() {
      await request('shutdown', undefined).catch(() => {})
      notify(child, 'exit', undefined)
      const timer = setTimeout(() => child.kill('SIGKILL'), 2000)
      await ended
      clearTimeout(timer)
    },
  }
}

function send(child: ChildProcessWithoutNullStreams, message: object): void {
  const text = JSON.stringify({ jsonrpc: '2.0', ...message })
  child.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
}

function notify(child: ChildProcessWithoutNullStreams, method: string, params: unknown): void {
  send(child, { method, params })
}

type Ask = <T>(method: string, params: unknown) => Promise<T>

/** Sends requests and reads answers; what the server asks in turn, such as for settings, is answered with nothing. */
function connect(child: ChildProcessWithoutNullStreams, ended: Promise<void>): Ask {
  const waiting = new Map<number, Waiting>()
  let lastId = 0
  let unread = Buffer.alloc(0)
  child.stderr.resume()
  child.stdin.on('error', () => {})
  void ended.then(() => {
    for (const { reject } of waiting.values()) reject(new Error('The language server has ended'))
  })
  child.stdout.on('data', (chunk: Buffer) => {
    unread = Buffer.concat([unread, chunk])
    for (;;) {
      const headerEnd = unread.indexOf('\r\n\r\n')
      const length = Number(
        /Content-Length: (\d+)/i.exec(unread.subarray(0, Math.max(0, headerEnd)).toString())?.[1],
      )
      if (headerEnd === -1 || unread.length < headerEnd + 4 + length) return
      const text = unread.subarray(headerEnd + 4, headerEnd + 4 + length).toString()
      unread = unread.subarray(headerEnd + 4 + length)
      receive(JSON.parse(text) as Message)
    }
  })

  function receive({ id, method, result, error }: Message): void {
    if (method !== undefined) {
      if (id !== undefined) send(child, { id, result: method === 'workspace/configuration' ? [{}] : null })
      return
    }
    const request = typeof id === 'number' ? waiting.get(id) : undefined
    if (typeof id === 'number') waiting.delete(id)
    if (error === undefined) request?.resolve(result)
    else request?.reject(new Error(error.message))
  }

  return async <T>(method: string, params: unknown): Promise<T> => {
    lastId += 1
    const id = lastId
    const answer = new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }))
    send(child, { id, method, params })
    return (await answer) as T
  }
}
