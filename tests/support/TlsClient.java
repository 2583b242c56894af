import java.io.InputStream;
import java.net.Socket;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/** Connects to 127.0.0.1 as to HOST, verifies it as HTTPS clients do, and prints the first line it is sent. */
public class TlsClient {
    public static void main(String[] arguments) throws Exception {
        Socket plain = new Socket("127.0.0.1", Integer.parseInt(arguments[1]));
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        try (SSLSocket tls = (SSLSocket) factory.createSocket(plain, arguments[0], plain.getPort(), true)) {
            SSLParameters parameters = tls.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            tls.setSSLParameters(parameters);
            tls.startHandshake();
            InputStream input = tls.getInputStream();
            for (int octet = input.read(); octet >= 0; octet = input.read()) {
                System.out.print((char) octet);
                if (octet == '\n') break;
            }
        }
    }
}
